"""How the program logs. The first of its modules that is imported: structlog's renderer for developers brings in rich
wherever it is installed, 5 MiB and 55 ms of each process, and nothing is rendered with it here.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

_RICH = "rich"
_HIDDEN = _RICH not in sys.modules
if _HIDDEN:
    sys.modules[_RICH] = None  # type: ignore[assignment] # structlog does without what cannot be imported
try:
    import structlog
finally:
    if _HIDDEN:
        del sys.modules[_RICH]


KEYS = ("timestamp", "level", "logger", "event")


class _Lines(structlog.PrintLogger):
    """Of one logger."""

    def __init__(self, name: str) -> None:
        super().__init__(sys.stderr)
        self.name = name


def _named(logger: Any, _: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    event["logger"] = getattr(logger, "name", "")
    return event


def configure(level_name: str) -> None:
    """One line a message on standard error, as key=value, whichever of the two libraries of loggers it came by."""
    level = getattr(logging, level_name.upper())
    stamp, level_of = structlog.processors.TimeStamper(fmt="iso"), structlog.processors.add_log_level
    failure = structlog.processors.format_exc_info
    line = structlog.processors.LogfmtRenderer(key_order=KEYS, drop_missing=True)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        processors=[stamp, level_of, _named, failure, line],
        logger_factory=lambda *names: _Lines(names[0] if names else ""),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[stamp, level_of, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, failure, line],
        )
    )
    logging.basicConfig(level=level, handlers=[handler])
