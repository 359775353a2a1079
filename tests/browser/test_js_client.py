"""clients/js in Chromium, on a page of another origin than the gateway's."""

import os
import signal
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.acceptance.cli_stack import Up, until
from tests.browser.gateway import is_over, mint, nobody_reads, post
from tests.browser.page import run

OVER = pytest.mark.parametrize("over", ["sse", "websocket"])

# What submits and hands out jobs: the gateway itself, or a WebSocket to it.
VIA = "const via = more.over === 'sse' ? dure : await dure.connect();"


def seen(page: Page, count: int) -> None:
    page.wait_for_function("count => (globalThis.seen ?? []).length >= count", arg=count, timeout=60_000)


@OVER
def test_a_feed_tells_states_logs_progress_output_and_the_result(page: Page, up: Up, over: str) -> None:
    told = run(
        page,
        VIA
        + """
        const job = await via.submit("tasks.tell", { args: ["a b"], tags: ["told"] });
        const events = [];
        for await (const event of job.events()) events.push(event);
        const record = await job.get();
        return { id: job.id, receipt: job.receipt, record, events };
        """,
        url=up.url,
        over=over,
    )
    assert told["receipt"]["state"] == "ACCEPTED"
    assert told["record"]["tags"] == ["told"]
    events = told["events"]
    assert {event["data"]["job"] for event in events} == {told["id"]}
    assert len({event["id"] for event in events}) == len(events)
    kinds = [event["kind"] for event in events]
    assert (kinds[0], kinds[-1]) == ("state", "result")
    entries = [event for event in events if event["kind"] in ("output", "progress")]
    assert [event["data"].get("chunk", event["data"].get("current")) for event in entries] == ["a", 1, "b", 2]
    assert entries[1]["data"]["total"] == 2
    assert entries[1]["data"]["message"] == "telling"
    assert events[-1]["data"]["state"] == "SUCCESS"
    assert events[-1]["data"]["result"] == 2


@OVER
def test_a_feed_has_no_gap_and_no_repeat_when_the_gateway_is_killed(
    page: Page, up: Up, over: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    page.evaluate("globalThis.seen = []")
    run(
        page,
        """
        globalThis.retries = 0;
        const own = new Dure({ url, pauses: { min: 0.05, max: 0.5 }, onRetry: () => { globalThis.retries++; } });
        const via = more.over === 'sse' ? own : await own.connect();
        const job = await via.submit("tasks.stream", { args: [300, more.gate] });
        globalThis.end = (async () => {
          for await (const { kind, data } of job.events()) {
            if (kind === "output") seen.push(data.chunk);
            else if (kind === "log") globalThis.logged = data;
            else if (kind === "result") return data;
          }
        })();
        """,
        url=up.url,
        over=over,
        gate=str(gate),
    )
    seen(page, 20)
    before = up.children()["serve"]
    os.kill(before, signal.SIGKILL)
    until(lambda: up.children().get("serve", before) != before, lambda: up.output)
    gate.touch()
    end = page.evaluate("globalThis.end")
    assert page.evaluate("globalThis.seen") == list(range(300))
    assert page.evaluate("globalThis.retries") >= 1
    assert (end["state"], end["result"]) == ("SUCCESS", 300)
    logged = page.evaluate("globalThis.logged")
    assert (logged["level"].upper(), logged["logger"], logged["message"]) == ("WARNING", "tasks", "begins")


@OVER
def test_a_feed_begins_behind_a_known_event_also_after_the_end(page: Page, up: Up, over: str) -> None:
    told = run(
        page,
        VIA
        + """
        const read = async (after) => {
          const events = [];
          for await (const event of via.job(job.id).events({ after })) events.push(event.id);
          return events;
        };
        const job = await dure.submit("tasks.tell", { args: ["a b c"] });
        await job.result();
        await ended(job);
        const all = await read();
        const behind = [];
        for (const id of all) behind.push(await read(id));
        return { all, behind };
        """,
        url=up.url,
        over=over,
    )
    assert told["behind"] == [told["all"][place:] for place in range(1, len(told["all"]) + 1)]


def test_many_jobs_share_one_connection(page: Page, up: Up) -> None:
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    results = run(
        page,
        """
        const connection = await dure.connect();
        await connection.ping();
        const jobs = await Promise.all([...Array(30).keys()].map((n) =>
          connection.submit("tasks.tell", { args: ["word ".repeat(n + 1)] })));
        const ends = await Promise.all(jobs.map(async (job) => {
          const chunks = [];
          for await (const chunk of job.output()) chunks.push(chunk);
          return [chunks.length, await connection.job(job.id).result()];
        }));
        connection.close();
        return ends;
        """,
        url=up.url,
    )
    assert results == [[count, count] for count in range(1, 31)]
    assert len(sockets) == 1


@OVER
def test_what_fails_is_an_error_with_its_reason(page: Page, up: Up, over: str) -> None:
    told = run(
        page,
        VIA
        + """
        const job = await via.submit("tasks.divide", { args: [1, 0] });
        const first = await job.result().catch((error) => error);
        const again = await via.job(job.id).result().catch((error) => error);
        const output = await job.output().next().catch((error) => error);
        const wrong = await via.submit("tasks.divide", { args: ["six", 4] }).catch((error) => error);
        const nobody = await via.job("nobody").events().next().catch((error) => error);
        return [first, again, output, wrong, nobody].map((error) => [
          error instanceof ProblemError, error instanceof FailedError, error.code, error.state, error.error?.type]);
        """,
        url=up.url,
        over=over,
    )
    failed = [True, True, "job-failed", "FAILURE", "ZeroDivisionError"]
    assert told == [
        *[failed] * 3,
        [True, False, "invalid", None, None],
        [True, False, "unknown-job", None, None],
    ]


@OVER
def test_a_cancelled_job_ends_its_feed(page: Page, up: Up, over: str) -> None:
    told = run(
        page,
        VIA
        + """
        const job = await via.submit("tasks.divide", { args: [1, 1], delay: 3600 });
        const feed = job.events();
        const first = (await feed.next()).value;
        await job.cancel();
        let last;
        for await (const event of feed) last = event;
        const again = await via.job(job.id).result().catch((error) => error.reason);
        return [first.data.state, last.kind, last.data.state, again];
        """,
        url=up.url,
        over=over,
    )
    assert told == ["SCHEDULED", "result", "REVOKED", "revoked"]


def test_leaving_a_loop_and_aborting_close_the_connection(page: Page, up: Up, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    told = run(
        page,
        """
        const job = await dure.submit("tasks.until", { args: [more.gate] });
        for await (const { kind } of job.events()) if (kind === "output") break;
        const stop = new AbortController();
        const reading = (async () => { for await (const _ of job.events({ signal: stop.signal })); })();
        setTimeout(() => stop.abort(new Error("enough")), 100);
        const why = await reading.catch((error) => error.message);
        const late = await job.result({ timeout: 0.1 }).catch((error) => error instanceof TimeoutError);
        return [job.id, why, late];
        """,
        url=up.url,
        gate=str(gate),
    )
    assert told[1:] == ["enough", True]
    until(lambda: nobody_reads(up), lambda: up.output)
    gate.touch()
    assert run(page, "return dure.job(more.id).result();", url=up.url, id=told[0]) == "there"


@OVER
def test_a_workflows_feed_tells_of_its_nodes_and_of_itself(page: Page, up: Up, over: str) -> None:
    form = {"chain": [{"task": "tasks.divide", "args": [6, 3]}, {"task": "tasks.divide", "args": [4]}]}
    flow = post(up, "workflows", form)["id"]
    told = run(
        page,
        VIA
        + """
        const events = [];
        for await (const event of via.workflow(more.flow).events()) events.push(event);
        return { events, result: await via.workflow(more.flow).result() };
        """,
        url=up.url,
        over=over,
        flow=flow,
    )
    events = told["events"]
    assert [event["kind"] for event in events].count("result") == 1
    assert events[-1]["kind"] == "result"
    assert events[-1]["data"]["workflow"] == flow
    assert events[-1]["data"]["result"] == told["result"] == 0.5
    ended = {
        event["data"]["node"] for event in events if event["data"].get("state") == "SUCCESS" and "node" in event["data"]
    }
    assert len(ended) == 2


def test_a_filters_feed_tells_of_all_jobs_that_fit(page: Page, up: Up) -> None:
    told = run(
        page,
        """
        const other = await dure.submit("tasks.tell", { args: ["a"] });
        await other.result();
        const after = String(Date.now() - 60_000);
        const last = [];
        for (let n = 1; n < 4; n++) last.push((await dure.submit("tasks.divide", { args: [n, 2] })).id);
        const ends = new Map();
        for await (const { kind, data } of dure.events({ task: "tasks.divide" }, { after })) {
          if (kind === "state" && data.state === "SUCCESS") ends.set(data.job, data.result);
          if (last.every((id) => ends.has(id))) break;
        }
        return [last.map((id) => ends.get(id)), ends.has(other.id)];
        """,
        url=up.url,
    )
    assert told == [[0.5, 1.0, 1.5], False]


@OVER
def test_a_jobs_token_opens_that_job_alone(page: Page, guarded: Up, over: str) -> None:
    mine, other = (post(guarded, "tasks/tasks.tell", {"args": ["a"]})["id"] for _ in range(2))
    told = run(
        page,
        VIA
        + """
        const chunks = [];
        for await (const chunk of via.job(more.mine).output()) chunks.push(chunk);
        const mine = via.job(more.mine);
        const asked = [via.job(more.other).events().next(), via.submit("tasks.tell", { args: ["b"] }), mine.cancel()];
        const refused = await Promise.all(asked.map((promise) => promise.catch((error) => error.status)));
        return [chunks, await via.job(more.mine).result(), ...refused];
        """,
        url=guarded.url,
        token=mint(guarded, job=mine),
        over=over,
        mine=mine,
        other=other,
    )
    assert told == [["a"], 1, 403, 403, 403]


@OVER
def test_a_tasks_token_submits_and_watches_what_it_submitted(page: Page, guarded: Up, over: str) -> None:
    told = run(
        page,
        VIA
        + """
        const job = await via.submit("tasks.tell", { args: ["a b"] });
        const chunks = [];
        for await (const chunk of job.output()) chunks.push(chunk);
        const other = await via.submit("tasks.divide", { args: [1, 1] }).catch((error) => error.status);
        return [chunks, (await ended(job)).state, other];
        """,
        url=guarded.url,
        token=mint(guarded, task="tasks.tell", allow=["submit"]),
        over=over,
    )
    assert told == [["a", "b"], "SUCCESS", 403]


@OVER
def test_what_is_no_token_is_refused_and_not_tried_again(page: Page, guarded: Up, over: str) -> None:
    told = run(
        page,
        """
        let retries = 0;
        const own = new Dure({ url, token, onRetry: () => { retries++; } });
        const begun = more.over === "sse" ? own.job("x").events().next() : own.connect();
        const error = await begun.catch((error) => error);
        return [error instanceof ProblemError, error.status, retries];
        """,
        url=guarded.url,
        token="made.up.token",
        over=over,
    )
    assert told == [True, 401, 0]


@OVER
def test_a_token_that_runs_out_in_the_middle_is_renewed(page: Page, guarded: Up, over: str, tmp_path: Path) -> None:
    """The first one is over before the gateway is killed, so that the next connection needs another."""
    gate = tmp_path / "gate"
    job = post(guarded, "tasks/tasks.stream", {"args": [400, str(gate)]})["id"]
    first = mint(guarded, job=job, expires_in=2)
    page.evaluate("globalThis.seen = []")
    page.evaluate("globalThis.asked = 0")
    run(
        page,
        """
        const tokens = [...more.tokens];
        const token = () => { globalThis.asked++; return tokens.length > 1 ? tokens.shift() : tokens[0]; };
        const own = new Dure({ url, token, pauses: { min: 0.05, max: 0.5 } });
        const via = more.over === "sse" ? own : await own.connect();
        globalThis.end = (async () => {
          for await (const chunk of via.job(more.job).output()) seen.push(chunk);
        })();
        """,
        url=guarded.url,
        tokens=[first, mint(guarded, job=job)],
        over=over,
        job=job,
    )
    seen(page, 200)
    until(lambda: is_over(guarded, job, first))
    os.kill(guarded.children()["serve"], signal.SIGKILL)
    gate.touch()
    page.evaluate("globalThis.end")
    assert page.evaluate("globalThis.seen") == list(range(400))
    assert page.evaluate("globalThis.asked") >= 2


def test_a_browsers_own_event_source_reads_a_feed_and_stops_at_its_end(page: Page, guarded: Up) -> None:
    told = run(
        page,
        """
        const job = await dure.submit("tasks.tell", { args: ["a b"] });
        const source = new EventSource(`${url}/api/v1/jobs/${job.id}/events?token=${job.receipt.token}`);
        const seen = [];
        const read = ({ data }) => seen.push(JSON.parse(data));
        for (const kind of ["output", "result"]) source.addEventListener(kind, read);
        await new Promise((resolve) => source.addEventListener("error", () => source.readyState === 2 && resolve()));
        return seen.map(({ chunk, state }) => chunk ?? state);
        """,
        url=guarded.url,
        token=mint(guarded, task="tasks.tell", allow=["submit"]),
    )
    assert told == ["a", "b", "SUCCESS"]


def test_no_token_is_in_a_log(page: Page, guarded: Up) -> None:
    token = mint(guarded, task="tasks.tell", allow=["submit"])
    for over in ("sse", "websocket"):
        run(
            page,
            VIA + "await (await via.submit('tasks.tell', { args: ['a'] })).result();",
            url=guarded.url,
            token=token,
            over=over,
        )
    assert token not in guarded.output
    assert token.rpartition(".")[2] not in guarded.output
