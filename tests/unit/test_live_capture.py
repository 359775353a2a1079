import logging
from collections.abc import Iterator
from typing import Any

import pytest
from _pytest.logging import LogCaptureHandler

from dure.worker.live import capture
from dure.worker.live.attempt import Attempt, current
from dure.worker.live.emitter import Emitter
from tests.unit.live_broker import Broker

NAMES = ("", "celery.task", "celery", "kombu", "amqp", "billiard", "dure", "vine")


class Console(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.shown: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.shown.append(record.getMessage())


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Iterator[Console]:
    """The root logger at WARNING with one handler, as a worker sets it up; afterwards, all is as it was."""
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(logger.level, logger.handlers[:]) for logger in loggers]
    console = Console()
    root = logging.getLogger()
    root.handlers[:], root.level = [console], logging.WARNING
    monkeypatch.setattr(capture, "_lowered", {})
    logging.getLogger("celery").manager._clear_cache()  # type: ignore[attr-defined]
    yield console
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def attempt(broker: Broker) -> Iterator[Attempt]:
    attempt = Attempt(Emitter(broker), "job", lines=3)
    token = current.set(attempt)
    yield attempt
    current.reset(token)


def messages(broker: Broker, attempt: Attempt) -> list[Any]:
    attempt.sink.flush(attempt)
    return [told["message"] for told in broker.bodies()]


def test_lines_are_captured_that_the_console_does_not_show(console: Console, broker: Broker, attempt: Attempt) -> None:
    capture.listen("INFO")
    logging.getLogger("shop").info("quiet %d", 1)
    logging.getLogger("shop").debug("too quiet")
    logging.getLogger("shop").warning("loud")
    assert console.shown == ["loud"]
    assert messages(broker, attempt) == ["quiet 1", "loud"]


def test_a_logger_with_a_level_of_its_own_shows_what_it_did(console: Console, broker: Broker, attempt: Attempt) -> None:
    logger = logging.getLogger("shop.verbose")
    logger.setLevel(logging.DEBUG)
    try:
        logger.debug("before")
        capture.listen("WARNING")
        logging.getLogger("shop.verbose.child").debug("after")
    finally:
        logger.setLevel(logging.NOTSET)
    assert console.shown == ["before", "after"]
    assert messages(broker, attempt) == []


def test_celerys_own_loggers_say_no_more_than_before(console: Console, broker: Broker, attempt: Attempt) -> None:
    capture.listen("DEBUG")
    assert not logging.getLogger("celery.worker.strategy").isEnabledFor(logging.INFO)
    assert not logging.getLogger("kombu.transport").isEnabledFor(logging.INFO)
    logging.getLogger("celery.app.trace").error("of the machinery")
    logging.getLogger("dure.worker").error("ours")
    assert console.shown == ["of the machinery", "ours"]
    assert messages(broker, attempt) == []


def test_outside_of_an_attempt_nothing_is_captured(console: Console, broker: Broker) -> None:
    capture.listen("INFO")
    current.set(None)
    logging.getLogger("shop").error("at start")
    assert console.shown == ["at start"]
    assert broker.sent == []


def test_a_line_is_captured_once_whatever_it_passes(console: Console, broker: Broker, attempt: Attempt) -> None:
    capture.listen("INFO")
    capture.listen("INFO")
    logging.getLogger("celery.task").warning("once")
    assert messages(broker, attempt) == ["once"]


def test_lines_beyond_the_limit_are_replaced_by_one_that_says_so(
    console: Console, broker: Broker, attempt: Attempt
) -> None:
    capture.listen("INFO")
    for n in range(10):
        logging.getLogger("shop").error("line %d", n)
    told = messages(broker, attempt)
    assert told[:3] == ["line 0", "line 1", "line 2"]
    assert len(told) == 4
    assert "DURE_CAPTURE_LINES" in told[3]


def test_passwords_in_urls_half_characters_and_endless_lines_do_no_harm(
    console: Console, broker: Broker, attempt: Attempt
) -> None:
    capture.listen("INFO")
    root = logging.getLogger()
    for reports in [each for each in root.handlers if isinstance(each, LogCaptureHandler)]:
        root.removeHandler(reports)  # a report with half a character could not be sent
    log = logging.getLogger("shop")
    log.error("from postgresql://shop:hun:ter2@db/shop and https://x.example/a?b=c@d")
    log.error("half \ud800")
    log.error("x" * 100_000)
    first, second, third = messages(broker, attempt)
    assert first == "from postgresql://shop:***@db/shop and https://x.example/a?b=c@d"
    assert second == "half ?"
    assert len(third) < 20_000


def test_a_line_that_cannot_be_formatted_fails_as_logging_does(
    console: Console, broker: Broker, attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    capture.listen("INFO")
    logger = logging.getLogger("shop")
    logger.removeHandler(console)
    logging.getLogger().removeHandler(console)
    logger.info("%d", "no number")
    logger.info("next")
    assert messages(broker, attempt) == ["next"]
