"""Where a worker's health is told, and what is made of the answer."""

import json
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from dure import probe
from dure.cli.commands import app
from dure.errors import ConfigurationError
from dure.probe import File, Port
from dure.settings import load

WELL = {"alive": True, "consuming": True, "state": "consuming", "running": 1, "slots": 4}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (":8081", Port("", 8081)),
        ("localhost:8081", Port("localhost", 8081)),
        ("[::1]:8081", Port("::1", 8081)),
        ("/run/dure/%h.json", File("/run/dure/%h.json")),
        ("health.json", File("health.json")),
    ],
)
def test_a_place_is_a_file_or_a_port(text: str, place: File | Port) -> None:
    assert probe.parse(text) == place


@pytest.mark.parametrize(
    ("text", "why"), [("8081", "write :8081"), (":70000", "70000 is no port"), (":0", "0 is no port")]
)
def test_a_place_that_is_neither_is_told_as_a_wrong_setting(text: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as told:
        load(worker_health=text)
    (problem,) = told.value.problems
    assert (problem.place, why in problem.message) == ("worker_health", True)


@pytest.mark.parametrize(
    ("health", "age", "why_not"),
    [
        (WELL, 0, ""),
        (WELL, 60, "was last written 60 seconds ago"),
        (WELL | {"alive": False}, 0, "its loop stands still"),
        (WELL | {"consuming": False, "state": "draining"}, 0, "it is draining"),
        ([], 0, "that is no worker's health"),
        (None, 0, "No such file"),
    ],
)
def test_a_worker_is_ready_that_lives_and_consumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, health: object, age: int, why_not: str
) -> None:
    path = tmp_path / "health.json"
    if health is not None:
        path.write_text(json.dumps(health))
        asked_at = path.stat().st_mtime + age
        monkeypatch.setattr(probe, "time", SimpleNamespace(time=lambda: asked_at))
    answer = probe.ask(File(str(path)))
    assert answer.is_ready is (why_not == "")
    assert why_not in answer.why_not


def test_check_asks_a_worker_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    path.write_text(json.dumps(WELL))
    well = CliRunner().invoke(app, ["check", "--worker", str(path)])
    assert (well.exit_code, "1 of 4 slots" in well.stdout) == (0, True)
    with socket.socket() as nobodys:  # bound, so that nobody else takes it, and not listened to
        nobodys.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobodys.getsockname()[1]}"
        missing = CliRunner().invoke(app, ["check", "--worker", address, "--json"])
    assert missing.exit_code == 1
    (finding,) = json.loads(missing.stdout)["findings"]
    assert "nothing was told" in finding["message"]


def test_each_of_several_workers_has_a_place_of_its_own() -> None:
    assert [probe.numbered(":8081", number) for number in (1, 2)] == [":8081", ":8082"]
    assert probe.numbered("[::1]:8081", 3) == "[::1]:8083"
    assert probe.numbered("/run/%h.json", 2) == "/run/%h.json"
    for shared in ("/run/health.json", "/run/%n.json", ":65535"):
        with pytest.raises(ValueError, match=r"would share|is no port"):
            probe.numbered(shared, 2)
