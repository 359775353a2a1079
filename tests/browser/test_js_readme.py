"""Every example of clients/js/README.md does what is written under it; its tasks are those that it shows."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import NamedTuple

import httpx
import pytest
from playwright.sync_api import Page

from tests.acceptance.cli_stack import Up
from tests.browser.page import CLIENT, DEADLINE, module
from tests.services.chromium import need

_WRITTEN = "http://localhost:8000"
_EXAMPLE = re.compile(r"(?P<node><!-- in node -->\n)?```js\n(?P<code>.*?)```\n\n```text\n(?P<told>.*?)```\n", re.DOTALL)
_PRELUDE = f'import {{ Dure }} from "@dure/client";\nconst dure = new Dure({{ url: "{_WRITTEN}" }});\n'
_CAPTURED = (
    "const lines = [];\nconst console = { log: (...words) => lines.push(words.join(' ')) };\nexport default lines;\n"
)


class Example(NamedTuple):
    title: str
    code: str
    told: list[str]
    in_node: bool


def examples() -> list[Example]:
    text = (CLIENT / "README.md").read_text()
    found = []
    for match in _EXAMPLE.finditer(text):
        title = re.findall(r"^## (.*)$", text[: match.start()], re.MULTILINE)[-1]
        code = match["code"] if "new Dure(" in match["code"] else _PRELUDE + match["code"]
        found.append(Example(f"{title} {len(found)}", code, match["told"].splitlines(), bool(match["node"])))
    assert len(found) == text.count("```js\n"), "an example has no output written under it"
    return found


EXAMPLES = examples()


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, origin: tuple[str, dict[str, bytes]]) -> Iterator[Up]:
    """Runs the tasks that the README shows."""
    folder = tmp_path_factory.mktemp("shown")
    tasks = re.search(r"```python\n# tasks\.py\n(.*?)```", (CLIENT / "README.md").read_text(), re.DOTALL)
    assert tasks
    (folder / "tasks.py").write_text(tasks[1])
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    with Up(folder, "-A", "tasks:app", environment={"PYTHONPATH": path, "DURE_CORS_ORIGINS": origin[0]}) as stack:
        grant = {"task": "tasks.tell", "allow": ["submit"]}
        response = httpx.post(f"{stack.url}/api/v1/tokens", json=grant, timeout=30, trust_env=False)
        origin[1]["/token"] = response.json()["token"].encode()
        yield stack


@pytest.mark.parametrize("example", [e for e in EXAMPLES if not e.in_node], ids=lambda e: e.title)
def test_an_example_does_in_a_page_what_it_says(page: Page, shown: Up, example: Example) -> None:
    assert module(page, _CAPTURED + example.code.replace(_WRITTEN, shown.url)) == example.told


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.in_node], ids=lambda e: e.title)
def test_an_example_does_in_node_what_it_says(built: Path, shown: Up, example: Example) -> None:
    node = which("node")
    need(node, "node is not installed: run `scripts/services node npm`")
    told = subprocess.run(
        [str(node), "--input-type=module", "--eval", example.code.replace(_WRITTEN, shown.url)],
        cwd=CLIENT,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert told.stdout.splitlines() == example.told, told.stderr
