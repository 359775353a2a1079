"""What the documentation tells to type is typed, and what it shows is what comes back."""

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import CodeType
from typing import Any

import httpx
import pytest

from dure.settings import Settings, load
from tests.docs.answers import http_differences, json_differences, text_differences
from tests.docs.documents import CHECKOUT, PATHS, Block, Document, document
from tests.docs.shop import DEADLINE, Shop, named, until

ANSWERS = {"json": json_differences, "http": http_differences}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """What the README says to start, started by its own line."""
    found = Shop.open(tmp_path_factory.mktemp("shop"))
    (line,) = [line for block in document("README.md").blocks for line in block.lines if line.startswith("dure up")]
    with found.started(line) as written:
        until(lambda: "Dure is ready" in written(), written)
        yield found


@pytest.fixture
def here(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """In the shop's folder, with its tasks to import."""
    monkeypatch.chdir(shop.folder)
    monkeypatch.syspath_prepend(str(shop.folder))
    return shop


def shell_with_answers(name: str) -> list[tuple[Block, Block | None]]:
    """Each shell block that is run, with the block that shows its answer."""
    blocks = document(name).blocks
    after = [*blocks[1:], None]
    return [
        (block, answer if answer and answer.language in {*ANSWERS, "text"} else None)
        for block, answer in zip(blocks, after, strict=True)
        if block.language == "sh" and block.lines
    ]


def settled(block: Block) -> Block:
    """Where it shows what workers run now, nothing: first the workflow before it comes to its end, silently."""
    if "/api/v1/workers" not in block.text:
        return block
    wait = "until curl -s localhost:8000/api/v1/workflows/$FLOW/result | grep -q SUCCESS; do sleep 0.1; done"
    return replace(block, text=f"{wait}\n{block.text}")


def test_the_readmes_first_job_gives_its_result_over_http_and_on_the_command_line(shop: Shop) -> None:
    (block,) = [block for block in document("README.md").blocks if block.text.startswith("curl")]
    (output,) = shop.run([block])
    record, after = json.JSONDecoder().raw_decode(output)
    assert (record["state"], record["result"]) == ("SUCCESS", 5)
    assert output[after:].split()[-1] == "5"


@pytest.mark.parametrize(
    ("beginning", "printed"),
    [
        ("from dure import Dure", "5\n"),
        ("from celery import chain", "15\n"),
        ("from tasks import answer", "You asked: Why? "),
    ],
)
async def test_the_readmes_client_prints_the_result(
    beginning: str, printed: str, here: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = named("README.md", beginning)
    code = compile(block.text, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(code, CodeType)
    names: dict[str, Any] = {}
    exec("from tasks import add", names)
    await eval(code, names)
    assert capsys.readouterr().out == printed


def test_the_python_page_runs(shop: Shop) -> None:
    pages = ("client.py", "script.py", "once.py", "again.py")
    for name in pages:
        (block,) = named("docs/python.md", f"# {name}")
        ending = "\nimport asyncio\nasyncio.run(main())\n" if name == "client.py" else ""
        (shop.folder / name).write_text(block.text + ending)
    client, script, once, again = shop.run([Block("docs/python.md", "sh", f"python {name}", None) for name in pages])
    assert client.splitlines()[:2] == ["5", "[1, 2, 3]"]
    assert "tasks.add" in client.splitlines()[2]
    assert client.splitlines()[3:] == ["SCHEDULED", "REVOKED"]
    assert script == "5\n"
    assert once.splitlines() == ["True", "the idempotency key 'order-4712' was used for another request", "True"]
    assert again.splitlines()[:4] == ["ZeroDivisionError", "1", "0.25", "0.75"]


@pytest.mark.parametrize("name", ["docs/http.md", "docs/cli.md"])
def test_every_example_gives_the_answer_that_is_shown(name: str, shop: Shop) -> None:
    pairs = shell_with_answers(name)
    outputs = shop.run([settled(block) for block, _ in pairs])
    wrong = {}
    for (block, answer), output in zip(pairs, outputs, strict=True):
        if answer is None:
            continue
        if answer.language == "text":
            found = text_differences(answer.text, output, str(shop.folder))
        else:
            found = ANSWERS[answer.language](answer.text, output)
        if found:
            wrong[block.place] = found
    assert wrong == {}


def test_the_workflows_page_runs(shop: Shop) -> None:
    pages = ("canvas.py", "dag.py", "failing.py", "growing.py")
    for name in pages:
        (block,) = named("docs/workflows.md", f"# {name}")
        (shop.folder / name).write_text(block.text)
    told = shop.run([Block("docs/workflows.md", "sh", f"python {name}", None) for name in pages])
    canvas, dag, failing, growing = (output.splitlines() for output in told)
    assert canvas[:4] == ["13", "[0, 2, 4]", "6", "0.25"]
    assert [line.split()[1:] for line in canvas[4:]] == [
        ["tasks.add", "SUCCESS"],
        ["tasks.add", "SUCCESS"],
        ["tasks.add", "SUCCESS"],
        ["tasks.total", "SUCCESS"],
        ["tasks.divide", "SUCCESS"],
    ]
    assert dag == ["{'sum': 0.2}"]
    assert failing == [
        "FAILURE ratio ZeroDivisionError",
        "ratio FAILURE error",
        "report SUCCESS None",
        "next FAILURE upstream-failed",
    ]
    assert growing[0] == "{'halves': 0.625}"


def test_every_route_that_takes_no_body_answers_as_the_table_says(shop: Shop) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/api/v1/tasks", "/api/v1/jobs"):
        assert httpx.get(shop.url + path, timeout=DEADLINE).status_code == 200, path


def test_every_metric_is_listed_and_no_other(shop: Shop) -> None:
    told = set(
        re.findall(r"^# TYPE (dure_\w+) ", httpx.get(f"{shop.url}/metrics", timeout=DEADLINE).text, re.MULTILINE)
    )
    listed = set(re.findall(r"^\| `(dure_\w+)` \| (?:gauge|counter)", document("docs/http.md").text, re.MULTILINE))
    assert listed == {name for name in told if not name.endswith("_created")}


async def test_the_application_with_dures_routes_runs(here: Shop) -> None:
    (block,) = named("docs/http.md", "# api.py")
    names: dict[str, Any] = {"__name__": "api"}
    exec(compile(block.text, block.place, "exec", dont_inherit=True), names)
    app = names["app"]
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://app") as client,
    ):
        job_id = (await client.post("/reports")).json()["job"]
        assert (await client.get(f"/dure/api/v1/jobs/{job_id}")).json()["tags"] == ["report"]
        ended = await app.state.dure.waiting.wait(await app.state.dure.job(job_id), 10)
        assert ended.result == 0.25


def test_the_settings_files_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"DURE_{name.upper()}", raising=False)
    (dotenv,) = named("docs/settings.md", "# .env")
    (project,) = named("docs/settings.md", "# pyproject.toml")
    (tmp_path / ".env").write_text(dotenv.text)
    assert load().broker == "amqp://shop:secret@rabbitmq:5672/shop"
    assert load().log_format == "json"
    (tmp_path / ".env").unlink()
    (tmp_path / "pyproject.toml").write_text(project.text)
    said = tomllib.loads(project.text)["tool"]["dure"]
    assert {name: value for name, value in said.items() if name != "api_keys"} == {
        name: str(value) if isinstance(value := getattr(load(), name), Path) else value
        for name in said
        if name != "api_keys"
    }


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_every_python_example_compiles(path: Path) -> None:
    for block in Document(path).blocks:
        if block.language == "python":
            compile(block.text, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_a_shell_example_is_run_or_says_why_it_is_not(path: Path) -> None:
    run = {"README.md", "README.ko.md", "docs/http.md", "docs/cli.md"}  # the second has the first one's code
    unrun = [block.place for block in Document(path).blocks if block.language == "sh" and block.skipped is None]
    assert str(path.relative_to(CHECKOUT)) in run or unrun == []
