"""What neutron-lib says of the attributes of each resource, given the aliases of extensions: run by its environment."""

import importlib
import json
import pkgutil
import sys

from neutron_lib.api import definitions

CORE = ("network", "subnet", "subnetpool", "port")
SAYS = {"allow_post": "post", "allow_put": "put", "is_filter": "filter", "is_sort_key": "sort"}
aliases = set(sys.argv[1:])
found: dict[str, dict[str, list[str]]] = {}
for module in sorted(one.name for one in pkgutil.iter_modules(definitions.__path__)):
    if module.startswith("_") or module in ("base", "constants"):
        continue
    told = importlib.import_module(f"neutron_lib.api.definitions.{module}")
    if module not in CORE and getattr(told, "ALIAS", "") not in aliases:
        continue
    for collection, attributes in told.RESOURCE_ATTRIBUTE_MAP.items():
        mine = found.setdefault(collection, {})
        for name, about in attributes.items():
            words = {word for said, word in SAYS.items() if about.get(said)}
            words |= {"visible"} if about.get("is_visible") else set()
            mine[name] = sorted(words | set(mine.get(name, ())))
json.dump(found, sys.stdout, indent=1, sort_keys=True)
