"""Where log lines go: structured JSON, one event a line, through the standard library's handlers."""

import logging
import logging.handlers
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import structlog
from structlog.typing import EventDict


class _Lossy(logging.Handler):
    """The reader may go away, or the disk be full: lines are lost then, without a traceback for each."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


class _Output(_Lossy, logging.StreamHandler[TextIO]):
    """A standard stream."""


class _File(_Lossy, logging.handlers.RotatingFileHandler):
    """A file that is renamed when it is full, and begun anew."""


_SHARED = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
)


def log_to_output(whose: Mapping[str, str], level: int = logging.INFO) -> None:
    """Write lines to standard output, for a pipe or a container; `whose` stands in every line."""
    _configure(_Output(sys.stdout), level, whose)


def log_to_error(whose: Mapping[str, str], level: int = logging.WARNING) -> None:
    """Write lines to standard error, for commands whose output is their result."""
    _configure(_Output(sys.stderr), level, whose)


def log_to_file(path: Path, whose: Mapping[str, str]) -> None:
    """Write lines to a file of at most 5 MB and one older one; `whose` stands in every line. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _configure(_File(path, maxBytes=5_000_000, backupCount=1), logging.INFO, whose)


def _configure(handler: logging.Handler, level: int, whose: Mapping[str, str]) -> None:
    def say_whose(_: object, __: str, line: EventDict) -> EventDict:
        return {**whose, **line}

    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=list(_SHARED),
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                say_whose,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(default=str),
            ],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    # What actors die of is reported by supervision; pykka's own tracebacks would say it twice.
    logging.getLogger("pykka").setLevel(logging.CRITICAL)
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    logging.getLogger("websocket").setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
