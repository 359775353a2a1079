"""Log lines of what runs long."""

import logging

import pytest
import structlog

from dure.cli import logs


def _fails(password: str) -> None:
    raise ValueError(f"no {len(password)}")


@pytest.mark.parametrize("style", ["console", "json"])
@pytest.mark.parametrize("who", [logging.getLogger("some.library"), structlog.get_logger("dure")], ids=["lib", "dure"])
def test_a_traceback_is_told_without_the_values_of_its_variables(
    style: str, who: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info", style)  # type: ignore[arg-type]
    try:
        try:
            _fails("hunter2")
        except ValueError:
            who.exception("boom")
    finally:
        structlog.reset_defaults()
        logging.basicConfig(handlers=[], level=logging.WARNING, force=True)
    told = capfd.readouterr().err
    assert "in _fails" in told
    assert "ValueError: no 7" in told
    assert "hunter2" not in told.replace('_fails("hunter2")', "").replace('_fails(\\"hunter2\\")', "")
