"""`dure watch` as people see it: a real terminal, a real job, and a script that reads it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest

from dure import SyncDure
from tests.acceptance.site import CHECKOUT, PATIENCE, Site, site, until


@pytest.fixture(scope="module")
def place() -> Iterator[Site]:
    with site() as place:
        place.start_gateway()
        place.start_worker("ours", "-I", "tests.acceptance.live_tasks")
        place.await_gateway()
        place.await_tasks("live.steps", "live.break")
        yield place


@pytest.fixture
def client(place: Site) -> Iterator[SyncDure]:
    with SyncDure(place.settings) as client:
        yield client


def environment(place: Site) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DURE_", "CELERY_"))}
    ours = {"PYTHONPATH": f"{CHECKOUT / 'src'}:{CHECKOUT}", "TERM": "xterm", "COLUMNS": "100"}
    return inherited | ours | place.environ


def watch(place: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dure", "watch", *arguments],
        env=environment(place),
        cwd=place.folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.skipif(which("script") is None, reason="the terminal is made by script(1)")
def test_a_terminal_shows_progress_output_and_lines_while_the_job_runs(
    place: Site, client: SyncDure, tmp_path: Path
) -> None:
    go, seen = tmp_path / "go", tmp_path / "typescript"
    middle = ("3/6", " 50 %", "at step 3", '{"step":3}')  # in no order: the bar is drawn by a thread of its own

    def shown_so_far() -> str:
        return seen.read_text(errors="replace") if seen.exists() else ""  # it may end within a character

    job = client.submit("live.steps", 6, str(go))
    command = f"{sys.executable} -m dure watch {job.id}"
    shown = subprocess.Popen(
        ["script", "-qefc", command, str(seen)],
        env=environment(place),
        cwd=place.folder,
        stdout=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )
    try:
        until(lambda: all(text in shown_so_far() for text in middle), "what was told in the middle")
        go.touch()
        assert shown.wait(PATIENCE) == 0
    finally:
        shown.kill()
        shown.wait()
    assert "at step 6" in seen.read_text()


def test_a_pipe_has_the_result_alone_and_what_was_told_beside_it(place: Site, client: SyncDure) -> None:
    job = client.submit("live.steps", 2)
    told = watch(place, job.id)
    assert (told.returncode, told.stdout) == (0, "2\n")
    lines = told.stderr.splitlines()
    assert [line for line in lines if line.startswith("{")] == ['{"step":1}', '{"step":2}']
    assert [line.rpartition(": ")[2] for line in lines if "INFO" in line] == ["at step 1", "at step 2"]


def test_events_are_lines_of_json_and_the_last_one_is_the_result(place: Site, client: SyncDure) -> None:
    job = client.submit("live.steps", 2)
    told = watch(place, job.id, "--json")
    events = [json.loads(line) for line in told.stdout.splitlines()]
    assert (told.returncode, told.stderr) == (0, "")
    assert [event["data"]["chunk"]["step"] for event in events if event["event"] == "output"] == [1, 2]
    assert (events[-1]["event"], events[-1]["data"]["result"]) == ("result", 2)
    assert len({event["id"] for event in events}) == len(events)


def test_a_workflow_is_watched_by_its_id(place: Site, client: SyncDure) -> None:
    flow = client.submit_workflow({"nodes": {"first": {"task": "live.steps", "args": [1]}}})
    told = watch(place, flow.id)
    assert told.returncode == 0
    assert 'first │ {"step":1}' in told.stderr
    events = [json.loads(line) for line in watch(place, flow.id, "--json").stdout.splitlines()]
    assert events[-1]["event"] == "result"
    assert events[-1]["data"]["state"] == "SUCCESS"


def test_a_failure_is_shown_behind_what_was_told_and_is_exit_code_1(place: Site, client: SyncDure) -> None:
    job = client.submit("live.break", 2)
    told = watch(place, job.id)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.splitlines()[:2] == ["0", "1"]
    assert "ValueError: broken" in told.stderr
    assert watch(place, job.id, "--json").returncode == 1
