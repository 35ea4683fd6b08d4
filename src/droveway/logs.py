"""How the program logs. The first of its modules that is imported: structlog's renderer for developers brings in rich
wherever it is installed, 5 MiB and 55 ms of each process, and nothing is rendered with it here.
"""

from __future__ import annotations

import logging
import sys

_RICH = "rich"
_HIDDEN = _RICH not in sys.modules
if _HIDDEN:
    sys.modules[_RICH] = None  # type: ignore[assignment] # structlog does without what cannot be imported
try:
    import structlog
finally:
    if _HIDDEN:
        del sys.modules[_RICH]


def configure(level_name: str) -> None:
    """One line a message on standard error, as key=value."""
    level = getattr(logging, level_name.upper())
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        processors=[
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
