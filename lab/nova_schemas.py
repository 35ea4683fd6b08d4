"""Makes tests/api/nova_schemas.json.gz of the schemas that Nova publishes (package `nova` of PyPI, Apache-2.0): for
each call of its API those of requests, queries and answers, each with the microversions it holds for.

    pip download nova==34.0.0 --no-deps && unzip nova-34.0.0-*.whl -d nova34
    python -m lab.nova_schemas nova34

Nova itself is not run, nor what it needs: its schemas are modules of plain values, and which of them belongs to which
call is read from the decorators of its controllers.
"""

from __future__ import annotations

import ast
import gzip
import importlib
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parent.parent / "tests" / "api" / "nova_schemas.json.gz"
API = "nova.api.openstack.compute"
KINDS = {"schema": "request", "query_schema": "query", "response_body_schema": "response"}
FOREVER = 10_000
METHODS = ("GET", "POST", "PUT", "DELETE")


def _values(path: Path) -> dict[str, Any]:
    """The names of a module that are given a plain value."""
    found: dict[str, Any] = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = node.value
            if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Attribute):  # fields.InstanceState.X
                found[node.targets[0].id] = {"DELETED": "deleted"}.get(value.attr, value.attr.lower().replace("_", "-"))
                continue
            try:
                found[node.targets[0].id] = ast.literal_eval(value)
            except ValueError:
                continue
    return found


def _package(name: str, path: Path) -> None:
    """A package without what its own __init__ would load."""
    module = types.ModuleType(name)
    module.__path__ = [str(path)]
    sys.modules[name] = module


def _stand_in(name: str, values: dict[str, Any]) -> None:
    module = types.ModuleType(name)
    vars(module).update(values)
    sys.modules[name] = module
    parent, _, own = name.rpartition(".")
    setattr(sys.modules[parent], own, module)


def prepare(root: Path) -> None:
    for name in ("nova", "nova.api", "nova.api.openstack", API, f"{API}.schemas", "nova.api.validation"):
        _package(name, root.joinpath(*name.split(".")))
    for name in ("nova.objects", "nova.compute"):
        _package(name, root.joinpath(*name.split(".")))
    _stand_in("nova.i18n", {"_": lambda text: text})
    for name in ("nova.objects.instance", "nova.objects.tag", "nova.objects.external_event", "nova.compute.vm_states"):
        _stand_in(name, _values(root.joinpath(*name.split(".")).with_suffix(".py")))
    states = sys.modules["nova.compute.vm_states"]
    for name, word in (("SHELVED_OFFLOADED", "shelved_offloaded"), ("BUILDING", "building"), ("ACTIVE", "active")):
        setattr(states, name, word)


# -- controllers ------------------------------------------------------------------------------------------------------
def _minor(node: ast.expr | None, names: dict[str, Any], otherwise: int) -> int:
    if node is None:
        return otherwise
    value = node.value if isinstance(node, ast.Constant) else names[node.id] if isinstance(node, ast.Name) else None
    return otherwise if value is None else int(str(value).split(".")[1])


def _decorated(node: ast.FunctionDef) -> Iterator[tuple[str, list[ast.expr], dict[str, ast.expr]]]:
    for one in node.decorator_list:
        if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute):
            yield one.func.attr, one.args, {word.arg or "": word.value for word in one.keywords}


def _handlers(module: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """By class and method: the schemas, the microversions and, of an action, its name."""
    tree = ast.parse(module.read_text())
    schemas = {
        alias.asname or alias.name: f"{API}.schemas.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == f"{API}.schemas"
        for alias in node.names
    }
    names = _values(module) | {"MAX_PROXY_API_SUPPORT_VERSION": "2.35", "MIN_WITHOUT_PROXY_API_SUPPORT_VERSION": "2.36"}
    names |= {"MAX_IMAGE_META_PROXY_API_VERSION": "2.38", "MIN_WITHOUT_IMAGE_META_PROXY_API_VERSION": "2.39"}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for owner in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for method in (node for node in owner.body if isinstance(node, ast.FunctionDef)):
            one: dict[str, Any] = found.get((owner.name, method.name), {"range": []})
            for what, args, words in _decorated(method):
                low = args[1] if len(args) > 1 else words.get("min_version")
                high = args[2] if len(args) > 2 else words.get("max_version")
                if what in KINDS and isinstance(args[0], ast.Attribute) and isinstance(args[0].value, ast.Name):
                    place = schemas.get(args[0].value.id)
                    if place is not None:
                        schema = getattr(importlib.import_module(place), args[0].attr)
                        span = [_minor(low, names, 1), _minor(high, names, FOREVER), schema]
                        one.setdefault(KINDS[what], []).append(span)
                elif what == "api_version":
                    until = _minor(args[1] if len(args) > 1 else words.get("max_version"), names, FOREVER)
                    one["range"].append([_minor(args[0], names, 1), until])
                elif what == "action" and isinstance(args[0], ast.Constant):
                    one["action"] = args[0].value
            found[owner.name, method.name] = one
    return found


def collect(root: Path) -> dict[str, Any]:
    folder = root.joinpath(*API.split("."))
    tree = ast.parse((folder / "routes.py").read_text())
    aliases = {
        alias.asname or alias.name: alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == API
        for alias in node.names
    }
    controllers: dict[str, list[tuple[str, str]]] = {}
    routes: ast.expr | None = None
    for node in tree.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        if node.targets[0].id == "ROUTE_LIST":
            routes = node.value
        elif isinstance(node.value, ast.Call):
            classes = [
                (aliases[one.value.id], one.attr)
                for one in ast.walk(node.value)
                if isinstance(one, ast.Attribute) and isinstance(one.value, ast.Name) and one.value.id in aliases
            ]
            controllers[node.targets[0].id] = classes
    assert isinstance(routes, ast.Tuple), "ROUTE_LIST of nova/api/openstack/compute/routes.py"
    known: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    calls: dict[str, Any] = {}
    for entry in routes.elts:
        assert isinstance(entry, ast.Tuple), "a path and its methods"
        path, methods = entry.elts
        if not isinstance(methods, ast.Dict):
            continue
        for verb, target in zip(methods.keys, methods.values, strict=True):
            assert isinstance(target, ast.List) and isinstance(target.elts[0], ast.Name), "a controller and its method"
            for place, (module, owner) in enumerate(controllers[target.elts[0].id]):
                if module not in known:
                    known[module] = _handlers(folder / f"{module}.py")
                called = ast.literal_eval(target.elts[1])
                for (of, name), found in known[module].items():
                    if of != owner:
                        continue
                    is_action = called == "action" and "action" in found
                    if (name == called and place == 0) or is_action:  # the others add actions to the first
                        key = f"{ast.literal_eval(verb)} {ast.literal_eval(path)}"  # type: ignore[arg-type]
                        calls[key + (f" {found['action']}" if is_action else "")] = {
                            kind: value for kind, value in found.items() if kind != "action" and value
                        }
    return calls


# -- policies ---------------------------------------------------------------------------------------------------------
RANKS = {  # of the names in nova/policies/base.py; of several policies of one call the weakest is that of the call
    "RULE_ANY": 0,
    "PROJECT_READER_OR_ADMIN": 1,
    "PROJECT_MEMBER_OR_ADMIN": 2,
    "PROJECT_MANAGER_OR_ADMIN": 3,
    "ADMIN": 4,
    "SERVICE_ROLE": 4,
}
ROLES = ("any", "reader", "member", "manager", "admin")


def _policies(root: Path) -> dict[str, str]:
    """Who may call what by default: method, path and the name of an action -> role."""
    found: dict[str, int] = {}
    for module in sorted(root.joinpath("nova", "policies").glob("*.py")):
        for node in ast.walk(ast.parse(module.read_text())):
            if not isinstance(node, ast.Call) or getattr(node.func, "attr", "") != "DocumentedRuleDefault":
                continue
            words = {word.arg: word.value for word in node.keywords}
            check = words["check_str"]
            rank = RANKS.get(check.attr if isinstance(check, ast.Attribute) else "", 0)  # what is composed: the owner
            for operation in ast.literal_eval(words["operations"]):
                for method in [operation["method"]] if isinstance(operation["method"], str) else operation["method"]:
                    path, _, action = operation["path"].partition(" (")
                    path = "/" + path.strip().lstrip("/").rstrip("/")
                    key = f"{method} {path}" + (f" {action.rstrip(')')}" if action else "")
                    found[key] = min(found.get(key, rank), rank)
    return {key: ROLES[rank] for key, rank in found.items()}


def main(root: Path) -> None:
    prepare(root)
    schemas: list[Any] = []
    index: dict[str, int] = {}

    def numbered(schema: Any) -> int:
        text = json.dumps(schema, sort_keys=True)
        if text not in index:
            index[text] = len(schemas)
            schemas.append(schema)
        return index[text]

    calls = collect(root)
    for call in calls.values():
        for kind in KINDS.values():
            if kind in call:
                call[kind] = [[low, high, numbered(schema)] for low, high, schema in call[kind]]
    about = "Of nova 34.0.0 as PyPI has it (Apache-2.0), by lab/nova_schemas.py: [first, last, place among the schemas]"
    found = {"about": about, "calls": calls, "schemas": schemas, "policies": _policies(root)}
    made = json.dumps(found, separators=(",", ":"))
    TARGET.write_bytes(gzip.compress(made.encode(), mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
