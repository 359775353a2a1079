"""What a task and the configuration say of where a task runs, and which mistakes are told."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from dure.errors import ConfigurationError
from dure.worker import log, task_options

WRONG = [
    ({"pol": "process"}, "there is no option 'pol'"),
    ({"pool": "proces"}, "pool cannot be 'proces'"),
    ({"pool": True}, "pool cannot be True"),
    ({"pool": ["process"]}, "pool cannot be ['process']"),
    ("process", "is no dictionary"),
]


def application(options: Any = None, **settings: Any) -> Celery:
    app = Celery("options", broker="memory://", set_as_current=False)
    app.conf.update(settings)

    @app.task(shared=False, name="shop.add", **({"dure": options} if options else {}))
    def add() -> None: ...

    app.finalize()
    return app


@pytest.mark.parametrize(
    ("options", "settings", "expected"),
    [
        (None, {}, False),
        ({"pool": "process"}, {}, True),
        (None, {"dure_process_tasks": ["shop.add"]}, True),
        (None, {"dure_process_tasks": "shop.*"}, True),
        (None, {"dure_process_tasks": ("Shop.*", "hop")}, False),
        ({"pool": "thread"}, {"dure_process_tasks": ["*"]}, False),
        ({}, {"dure_process_tasks": ["*"]}, True),
    ],
)
def test_a_tasks_own_word_goes_before_the_setting(options: Any, settings: dict[str, Any], expected: bool) -> None:
    app = application(options, **settings)
    task_options.check(app)
    assert task_options.runs_in_process(app, app.tasks["shop.add"]) is expected


@pytest.mark.parametrize(("options", "why"), WRONG)
def test_a_wrong_option_is_told_with_its_place_and_remedy(options: Any, why: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        task_options.check(application(options))
    (problem,) = raised.value.problems
    assert problem.place == "task shop.add"
    assert why in problem.message
    assert 'dure={"pool": "process"}' in problem.remedy


def test_every_wrong_setting_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as raised:
        task_options.check(application({"pool": "x"}, dure_process_tasks=[1], dure_processes=0))
    assert [p.place for p in raised.value.problems] == ["dure_process_tasks", "dure_processes", "task shop.add"]


def test_a_pattern_that_names_no_task_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(log, "patterns_without_tasks", lambda setting, patterns: seen.append((setting, patterns)))
    task_options.check(application(dure_process_tasks=["shop.*", "shpo.*"]))
    assert seen == [("dure_process_tasks", ["shpo.*"])]


@pytest.mark.parametrize("pool", ["asyncio", "threads"])
def test_a_worker_does_not_start_with_a_wrong_option(tmp_path: Path, pool: str) -> None:
    (tmp_path / "shop.py").write_text(
        'from celery import Celery\n\napp = Celery("shop")\n\n\n@app.task(dure={"pool": "proces"})\ndef add(): ...\n'
    )
    command = [sys.executable, "-m", "dure", "worker", "-A", "shop", "--pool", pool]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("DURE_", "CELERY_"))}
    ended = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    told = " ".join(ended.stderr.split())
    assert "task shop.add" in told
    assert "'proces'" in told
