"""`dure run`, `dure workflow`, `dure workflows` and `dure signal`, and what other commands do with a workflow's id."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from dure.cli.codes import Code
from dure.cli.commands import app
from dure.event import JobEvent
from dure.job import JobError, Reason, State
from dure.ledger import Ledger
from dure.settings import load
from tests.unit.cli_session import folder  # noqa: F401 - a fixture

run = CliRunner()

CHAIN = {"name": "sums", "chain": [{"task": "t.add", "args": [1, 2]}, {"task": "t.double"}]}
APPROVED = {
    "nodes": {
        "draft": {"task": "t.draft"},
        "approve": {"wait": {}, "needs": ["draft"]},
        "send": {"task": "t.send", "args": [{"$result": "approve", "path": ["to"]}]},
    }
}

RELEASED = ("ACCEPTED", "QUEUED")  # the second, once the broker has confirmed its message


def dure(*words: str, code: Code = Code.DONE, typed: str | None = None) -> str:
    result = run.invoke(app, list(words), input=typed)
    assert result.exit_code == code, result.output
    return result.stdout if code is Code.DONE else result.stderr


def told(*words: str) -> Any:
    return json.loads(dure(*words, "--json"))


def submit(spec: Any, *words: str) -> str:
    return dure("run", "-", "--force", *words, typed=json.dumps(spec)).strip()


def ledger(ask: Callable[[Ledger], Awaitable[Any]]) -> Any:
    async def session() -> Any:
        ledger = Ledger(load().ledger)
        await ledger.open()
        try:
            return await ask(ledger)
        finally:
            await ledger.close()

    return asyncio.run(session())


def tell(workflow_id: str, node: str, state: State, **fields: Any) -> str:
    """As a worker's event would; returns the job's id."""

    async def record(ledger: Ledger) -> str:
        job = await ledger.node(workflow_id, node)
        assert job is not None
        fields.setdefault("has_result", state is State.SUCCESS)
        await ledger.record([JobEvent(job_id=job.id, state=state, at=time.time(), attempt=1, **fields)])
        return job.id

    return str(ledger(record))


def succeed(workflow_id: str, node: str, result: Any = None) -> str:
    return tell(workflow_id, node, State.SUCCESS, result=result)


def fail(workflow_id: str, node: str) -> str:
    error = JobError(type="shop.errors.Broken", message="it broke")
    return tell(workflow_id, node, State.FAILURE, reason=Reason.ERROR, error=error)


def test_a_workflow_from_a_file_is_submitted_and_drawn(folder: Path) -> None:  # noqa: F811
    (folder / "sums.json").write_text(json.dumps(CHAIN))
    workflow = dure("run", "sums.json", "--force").strip()
    succeed(workflow, "0", 3)
    drawn = dure("workflow", workflow)
    assert "sums  STARTED" in drawn
    assert "1 of 2" in drawn
    lines = [line.split() for line in drawn.splitlines() if "t." in line]
    assert [line[:3] for line in lines] == [["✓", "0", "t.add"], ["↓", "○", "1"]]


def test_a_file_that_is_no_json_is_told_with_its_line(folder: Path) -> None:  # noqa: F811
    (folder / "bad.json").write_text('{"chain": [\n  {"task" "x"}]}')
    assert "line 2, column 11" in dure("run", "bad.json", code=Code.USAGE)
    assert "NaN is no JSON" in dure("run", "-", typed="[NaN]", code=Code.USAGE)
    dure("run", "nothing.json", code=Code.USAGE)


def test_a_wrong_workflow_is_told_with_every_place_in_its_file() -> None:
    spec = {"nodes": {"a": {"task": "t.add", "needs": ["b"]}, "c": {"tsk": "t.add"}}}
    complaint = dure("run", "-", "--force", typed=json.dumps(spec), code=Code.USAGE)
    assert "Not submitted" in complaint
    assert "nodes.c" in complaint


def test_a_workflow_with_a_key_is_made_once() -> None:
    first = submit(CHAIN, "--idempotency-key", "a")
    result = run.invoke(app, ["run", "-", "--force", "--idempotency-key", "a"], input=json.dumps(CHAIN))
    assert (result.stdout.strip(), "no second workflow was made" in result.stderr) == (first, True)
    dure("run", "-", "--force", "--idempotency-key", "a", typed=json.dumps(APPROVED), code=Code.USAGE)


def test_waiting_prints_the_result_and_a_failure_is_exit_code_1() -> None:
    done, broken = submit(CHAIN), submit(CHAIN)
    succeed(done, "0", 3)
    succeed(done, "1", 6)
    assert dure("watch", done) == "6\n"
    *_, last = map(json.loads, dure("watch", done, "--json").splitlines())
    assert (last["event"], last["data"]["result"]) == ("result", 6)
    job = fail(broken, "0")
    complaint = dure("watch", broken, code=Code.FAILED)
    assert "shop.errors.Broken: it broke" in complaint
    assert f"dure job {job}" in complaint
    assert f"dure retry {broken}" in complaint
    dure("watch", "nobody", code=Code.UNKNOWN)


def test_waiting_is_given_up_in_time() -> None:
    complaint = dure("run", "-", "--force", "--wait", "--timeout", "0.1", typed=json.dumps(CHAIN), code=Code.TIMEOUT)
    assert "dure watch" in complaint


def test_workflows_are_listed_by_pages_with_how_far_they_are() -> None:
    dure("submit", "mail.send", "--force")
    assert dure("workflows") == ""
    older = submit(CHAIN)
    newer = submit(APPROVED)
    succeed(older, "0", 3)
    heads, first, second = dure("workflows").splitlines()
    assert heads.split() == ["ID", "STATE", "NAME", "DONE", "CREATED", "RAN"]
    assert first.split()[:6] == [newer, "STARTED", "–", "0", "of", "3"]
    assert second.split()[:6] == [older, "STARTED", "sums", "1", "of", "2"]
    succeed(older, "1", 6)
    assert [each["id"] for each in told("workflows", "--state", "success")["workflows"]] == [older]
    page = told("workflows", "--limit", "1")
    assert [each["id"] for each in told("workflows", "--cursor", page["next"])["workflows"]] == [older]
    dure("workflows", "--cursor", "nonsense", code=Code.USAGE)


def test_a_node_that_waits_says_how_to_signal_it_and_is_signalled() -> None:
    workflow = submit(APPROVED)
    assert "dure signal" not in dure("workflow", workflow)
    succeed(workflow, "draft")
    assert f"dure signal {workflow} approve [JSON]" in dure("workflow", workflow)
    assert dure("signal", workflow, "approve", '{"to": "x"}') == "approve has its signal\n"
    nodes = {node["name"]: node for node in told("workflow", workflow)["nodes"]}
    assert nodes["approve"]["state"] == "SUCCESS"
    assert nodes["send"]["state"] in RELEASED
    assert told("job", nodes["send"]["job"])["args"] == ["x"]
    assert "has ended" in dure("signal", workflow, "approve", code=Code.FAILED)


def test_a_signal_may_come_early_and_be_a_number_below_zero() -> None:
    workflow = submit(APPROVED)
    assert (
        dure("signal", workflow, "approve", "-1") == "approve has its signal, and ends when what it needs has ended\n"
    )
    assert told("workflow", workflow)["counts"]["WAITING"] == 2


def test_only_a_node_that_is_there_and_waits_is_signalled() -> None:
    workflow = submit(APPROVED)
    assert f"dure workflow {workflow}" in dure("signal", workflow, "nothing", code=Code.UNKNOWN)
    dure("signal", workflow, "draft", code=Code.UNKNOWN)
    assert "`dure workflows`" in dure("signal", "nobody", "approve", code=Code.UNKNOWN)


def test_a_workflow_is_cancelled_beside_jobs() -> None:
    workflow = submit(CHAIN)
    job = dure("submit", "mail.send", "--force", "--delay", "1h").strip()
    complaint = dure("cancel", workflow, "nobody", job, code=Code.UNKNOWN)
    assert "nobody submitted a job" in complaint
    cancelled = told("cancel", workflow, job)
    assert [(each["id"], each["state"]) for each in cancelled["workflows"]] == [(workflow, "REVOKED")]
    assert [(each["id"], each["state"]) for each in cancelled["jobs"]] == [(job, "REVOKED")]


def test_a_cancelled_workflow_whose_nodes_run_says_so() -> None:
    workflow = submit(CHAIN)
    tell(workflow, "0", State.STARTED)
    assert "nodes of it run" in dure("cancel", workflow)
    assert "cancel asked" in dure("workflow", workflow)
    assert "asked to end" in dure("workflow", workflow)


def test_a_workflow_that_has_ended_is_not_cancelled() -> None:
    workflow = submit(CHAIN)
    fail(workflow, "0")
    assert "has ended FAILURE" in dure("cancel", workflow, code=Code.FAILED)


def test_a_failed_workflow_is_drawn_with_its_error_and_run_again_from_what_failed() -> None:
    workflow = submit(CHAIN)
    succeed(workflow, "0", 3)
    fail(workflow, "1")
    drawn = dure("workflow", workflow)
    assert "Broken: it broke" in drawn
    assert f"→ dure retry {workflow}" in drawn
    result = run.invoke(app, ["retry", workflow])
    assert (result.exit_code, result.stdout.strip()) == (Code.DONE, workflow)
    assert "1 kept, 1 to run" in result.stderr
    first, second = told("workflow", workflow)["nodes"]
    assert (first["state"], second["state"] in RELEASED) == ("SUCCESS", True)
    assert "--node NAME" in dure("retry", workflow, code=Code.FAILED)


def test_a_workflow_is_run_again_from_a_node_with_what_was_changed() -> None:
    workflow = submit(CHAIN)
    succeed(workflow, "0", 3)
    succeed(workflow, "1", 6)
    assert dure("retry", workflow, "--node", "0", "--args", "[5, 6]").strip() == workflow
    nodes = {node["name"]: node for node in told("workflow", workflow)["nodes"]}
    assert (nodes["0"]["state"] in RELEASED, nodes["1"]["state"]) == (True, "WAITING")
    assert told("job", nodes["0"]["job"])["args"] == [5, 6]
    dure("retry", workflow, "--args", "[1]", code=Code.USAGE)
    dure("retry", "--task", "x", "--node", "0", code=Code.USAGE)
    dure("retry", workflow, "--node", "nothing", code=Code.UNKNOWN)
    dure("retry", "nobody", "--node", "0", code=Code.UNKNOWN)
    dure("retry", "nobody", "--node", "0", "--args", "[1]", code=Code.UNKNOWN)
    dure("retry", "nobody", code=Code.UNKNOWN)


def test_a_node_is_a_job_that_names_its_workflow() -> None:
    workflow = submit(CHAIN)
    (first, _) = told("workflow", workflow)["nodes"]
    shown = dure("job", first["job"])
    assert [line.split()[1:3] for line in shown.splitlines() if "workflow" in line] == [["workflow", workflow]]
    assert [line.split()[1:3] for line in shown.splitlines() if " node " in line] == [["node", "0"]]
    dure("submit", "mail.send", "--force")
    assert len(told("jobs", "--workflow", workflow)["jobs"]) == 2


def test_a_map_is_drawn_with_what_it_made() -> None:
    workflow = submit({"chain": [{"task": "t.list"}, {"map": {"task": "t.do"}}, {"task": "t.sum"}]})
    succeed(workflow, "0", list(range(40)))
    tell(workflow, "1.33", State.STARTED, worker="celery@web")
    succeed(workflow, "1.34")
    lines = [line.rstrip() for line in dure("workflow", workflow).splitlines()]
    first = next(at for at, line in enumerate(lines) if "t.list" in line)
    assert "40 nodes" in lines[first + 1]
    assert "1 of 40" in lines[first + 1]
    assert any("● 1.33" in line and "celery@web" in line for line in lines)
    assert "  ┆  └─ … 37 more: 1 SUCCESS · 36 ACCEPTED" in lines
    assert lines[first + 6].startswith("↓ ○ 2")
    assert len(dure("workflow", workflow, "--all").splitlines()) > 40


def test_an_unknown_workflow_is_told_as_such() -> None:
    submit(CHAIN)
    assert "`dure workflows`" in dure("workflow", "nobody", code=Code.UNKNOWN)


def test_on_a_terminal_it_is_drawn_until_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    from dure.cli import redraw

    workflow = submit(CHAIN)
    succeed(workflow, "0", 3)
    console = Console(force_terminal=True, width=100, height=30, record=True, color_system=None, quiet=False)
    looks = 0

    async def look() -> Any:
        nonlocal looks
        looks += 1
        if looks == 2:
            await asyncio.to_thread(succeed, workflow, "1", 6)
        return await asyncio.to_thread(ledger, lambda each: each.workflow_view(workflow))

    monkeypatch.setattr(redraw, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(redraw, "_REST", 0)
    with console.capture() as capture:
        asyncio.run(redraw.redraw(look, console))
    assert looks == 2
    drawn = capture.get()
    assert drawn.index("sums  STARTED") < drawn.index("sums  SUCCESS")
