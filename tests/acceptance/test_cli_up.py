"""`dure up` keeps its processes running, and leaves none behind."""

import os
import signal
import sys
from pathlib import Path

import httpx
import pytest

from tests import processes
from tests.acceptance.cli_stack import Up, until

TASKS = """
import os, time
from celery import Celery
app = Celery("shop", broker="amqp://user:secret@nowhere//")

@app.task
def add(x: int, y: int) -> int:
    "Add."
    return x + y

@app.task
def fail() -> None:
    raise ValueError("no luck")

@app.task
def nap(alarm: str) -> str:
    while not os.path.exists(alarm):
        time.sleep(0.02)
    return "rested"
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "shop_tasks.py").write_text(TASKS)
    return tmp_path


def up(home: Path, *arguments: str, **environment: str) -> Up:
    path = os.pathsep.join([str(home), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]).rstrip(os.pathsep)
    return Up(home, "-A", "shop_tasks:app", *arguments, environment={"PYTHONPATH": path} | environment)


def test_jobs_are_submitted_watched_and_listed_from_the_shell(home: Path) -> None:
    with up(home) as stack:
        assert stack.dure("submit", "shop_tasks.add", "2", "-3", "--wait").stdout == "-1\n"
        failed = stack.dure("submit", "shop_tasks.fail", "--wait")
        assert failed.returncode == 1
        assert "ValueError: no luck" in failed.stderr
        assert "Traceback" in failed.stderr
        near = stack.dure("submit", "shop_tasks.ad", "1", "1")
        assert near.returncode == 3
        assert "shop_tasks.add" in near.stderr
        wrong = stack.dure("submit", "shop_tasks.add", "1", "x")
        assert wrong.returncode == 2
        assert "args.1" in wrong.stderr
        alarm = home / "alarm"
        late = stack.dure("submit", "shop_tasks.nap", str(alarm), "--wait", "--timeout", "0.2")
        assert late.returncode == 4
        job_id = late.stderr.split()[0]
        until(lambda: "shop_tasks.nap" in stack.dure("workers").stdout, lambda: stack.output)
        alarm.touch()
        assert stack.dure("watch", job_id).stdout == '"rested"\n'
        assert job_id in stack.dure("jobs", "--task", "shop_tasks.nap").stdout
        assert "(x: int, y: int) -> int" in stack.dure("tasks", "add").stdout
        assert "celery" in stack.dure("queues").stdout
        assert stack.dure("check", "-A", "examples.quickstart.tasks:app").returncode == 0


def test_the_applications_own_broker_is_set_aside_and_its_password_hidden(home: Path) -> None:
    with up(home) as stack:
        assert "broker amqp://user:***@nowhere// is set aside" in stack.output
        assert "secret" not in stack.output
        assert stack.stop() == 0


def test_both_interrupts_end_it_cleanly_and_with_its_children(home: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        with up(home) as stack:
            children = stack.children()
            assert {"serve", "worker"} <= children.keys()
            assert stack.stop(number) == 0
            assert not any(map(processes.alive, children.values()))
            assert "killed" not in stack.output


def test_a_child_that_dies_is_started_again(home: Path) -> None:
    with up(home) as stack:
        before = stack.children()
        for name in ("worker", "serve"):
            os.kill(before[name], signal.SIGKILL)
            until(lambda name=name: stack.children().get(name, before[name]) != before[name], lambda: stack.output)  # type: ignore[misc]
        assert "worker ended (SIGKILL); starts again in 0.5 s" in stack.output
        # The listening socket outlives the gateway, so nobody was refused meanwhile.
        assert httpx.get(f"{stack.url}/healthz", timeout=20).status_code == 200
        assert stack.dure("submit", "shop_tasks.add", "1", "1", "--wait", "--timeout", "20").stdout == "2\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_nothing_is_left_when_it_is_killed(home: Path) -> None:
    with up(home, "--with", "sleep 600") as stack:
        children = stack.children()
        stack.process.kill()
        stack.process.wait()
        until(lambda: not any(map(processes.alive, children.values())), lambda: str(children))


def test_an_application_that_cannot_be_loaded_stops_everything(home: Path) -> None:
    (home / "shop_tasks.py").write_text("import nowhere_to_be_found")
    stack = up(home)
    stack.start()
    assert stack.process.wait(30) == 2
    assert "nowhere_to_be_found" in stack.output
    assert "starts again" not in stack.output


def test_a_port_in_use_is_told_before_anything_starts(home: Path) -> None:
    with up(home) as stack:
        second = stack.dure("up", "-A", "shop_tasks:app", "--port", str(stack.port))
        assert second.returncode == 2
        assert "is in use" in second.stderr


def test_a_second_interrupt_kills_a_worker_that_is_busy(home: Path) -> None:
    with up(home) as stack:
        job_id = stack.dure("submit", "shop_tasks.nap", str(home / "never")).stdout.strip()
        until(lambda: '"STARTED"' in stack.dure("job", job_id, "--json").stdout)
        stack.process.send_signal(signal.SIGINT)
        stack.tells("once more to kill")
        assert stack.stop() == 0


def test_with_rabbitmq_and_postgresql_it_is_the_same(home: Path, rabbitmq_url: str, postgres_url: str) -> None:
    with up(home, DURE_BROKER_URL=rabbitmq_url, DURE_LEDGER_URL=postgres_url) as stack:
        assert stack.dure("submit", "shop_tasks.add", "2", "3", "--wait").stdout == "5\n"
        assert "celery" in stack.dure("queues").stdout
        assert stack.dure("check").returncode == 0
        assert stack.stop() == 0
    assert not (home / "dure").exists()


def test_a_pool_of_processes_is_left_behind_by_no_kill(home: Path) -> None:
    with up(home, "-P", "prefork", "-c", "2") as stack:
        assert stack.dure("submit", "shop_tasks.add", "2", "3", "--wait").stdout == "5\n"
        worker = stack.children()["worker"]
        pool = list(processes.children(worker))
        assert len(pool) >= 2
        stack.process.kill()
        stack.process.wait()
        until(lambda: not any(map(processes.alive, [worker, *pool])), lambda: str(pool))
