"""How a process of Dure writes its log. A library user who configures structlog himself does not call this."""

from __future__ import annotations

import logging
import sys

import structlog

from dure.settings import Settings


def configure(settings: Settings) -> None:
    """Lines to standard error, as `log_format` says, from `log_level` up."""
    console = settings.log_format == "console"
    last: list[structlog.typing.Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
            )
        ]
        if console
        else [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # aiormq tells of each lost connection with a traceback; the link tells of it in one line.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
