"""Log lines of a command go to stderr, so that stdout holds its answer alone."""

from __future__ import annotations

import logging
import os
import sys
from typing import Literal

import structlog

_SHARED: tuple[structlog.types.Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure(level: str, style: Literal["console", "json"]) -> None:
    """For what runs long: one format for structlog and for what libraries log through `logging`."""
    least = logging.getLevelNamesMapping()[level.upper()]
    _configure_structlog(least, style)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderer(style)],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(least, logging.WARNING), force=True)


def quiet() -> None:
    """For commands that show their own outcome: only our errors are logged, and libraries' not at all."""
    _configure_structlog(logging.ERROR, "console")
    logging.disable(logging.CRITICAL)


def _configure_structlog(least: int, style: Literal["console", "json"]) -> None:
    structlog.configure(
        processors=[*_SHARED, *_renderer(style)],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )


def coloured() -> bool:
    return "NO_COLOR" not in os.environ and ("FORCE_COLOR" in os.environ or sys.stderr.isatty())


def _renderer(style: Literal["console", "json"]) -> list[structlog.types.Processor]:
    # Written out here, plainly: the renderer's own way draws every local variable, arguments and secrets among them.
    written_out = structlog.processors.format_exc_info
    if style == "json":
        return [written_out, structlog.processors.JSONRenderer()]
    plain = structlog.dev.plain_traceback
    return [written_out, structlog.dev.ConsoleRenderer(colors=coloured(), pad_event_to=0, exception_formatter=plain)]
