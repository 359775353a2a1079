"""Links lead somewhere, the two READMEs are one, and the text is the project's own."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.documents import CHECKOUT, PATHS, Document, document
from tests.unit.test_project import committed

WRITTEN = ("README.md", "README.ko.md", "CHANGELOG.md", *(f"docs/{name}.md" for name in (
    "design", "guarantees", "http", "cli", "settings", "production", "python",
)))  # fmt: skip
NOT_OURS = re.compile(
    r"(?i)\bsessions?\b|\bissue #?\d|(?<![\w&/(])#\d+\b|\bpull request|\bclaude|anthropic|openai|chatgpt|copilot"
    r"|\bllms?\b|\bai\b|language model|\bsub-?agents?\b|\bhelpers?\b|\bacceptance criteria|\btodo\b"
)
MAKERS = re.compile(rb"(?i)\bclaude\b|\banthropic|\bopenai|\bchatgpt|\bcopilot")
# One example is a client of such a server: it may name the package, and the locks have it.
CLIENT = re.compile(rb"(?i)\bopenai")
OF_THE_CLIENT = re.compile(r"examples/chat/.*|requirements/(dev|examples)\.txt|pyproject\.toml")
WIDTH = 120


def ids(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def broken_links(found: Document) -> list[str]:
    broken = []
    for link in found.links():
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        path = (found.path.parent / unquote(target)).resolve() if target else found.path
        if not path.exists() or (anchor and unquote(anchor) not in Document(path).anchors):
            broken.append(link)
    return broken


@pytest.mark.parametrize("name", WRITTEN)
def test_a_document_that_belongs_to_the_project_is_there(name: str) -> None:
    assert (CHECKOUT / name).is_file()


@pytest.mark.parametrize("path", PATHS, ids=ids)
def test_every_link_within_the_project_leads_somewhere(path: Path) -> None:
    assert broken_links(Document(path)) == []


@pytest.mark.parametrize("text", ["[x](nowhere.md)", "[x](../README.md#no-such-heading)", "[x](#neither)"])
def test_a_broken_link_would_be_found(text: str, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("# Here\n")
    (tmp_path / "docs" / "x.md").write_text(f"# There\n\n{text}\n")
    assert broken_links(Document(tmp_path / "docs" / "x.md")) != []


def test_both_readmes_have_the_same_code() -> None:
    english, korean = document("README.md"), document("README.ko.md")
    assert [(b.language, b.text) for b in korean.blocks] == [(b.language, b.text) for b in english.blocks]


def test_both_readmes_have_the_same_structure() -> None:
    english, korean = document("README.md"), document("README.ko.md")
    assert [level for level, _ in korean.headings] == [level for level, _ in english.headings]
    assert {*korean.links()} - {"README.md"} == {*english.links()} - {"README.ko.md"}


@pytest.mark.parametrize("path", PATHS, ids=ids)
def test_the_text_speaks_of_the_project_and_not_of_its_making(path: Path) -> None:
    text = path.read_text()
    if OF_THE_CLIENT.fullmatch(ids(path)):
        text = CLIENT.sub(b"", text.encode()).decode()
    assert [found[0] for found in NOT_OURS.finditer(text)] == []


@pytest.mark.parametrize("path", PATHS, ids=ids)
def test_no_line_of_prose_is_too_wide(path: Path) -> None:
    lines = Document(path).prose.splitlines()
    assert [line for line in lines if len(line) > WIDTH and not line.startswith("|")] == []


def test_the_changelog_has_this_version_first() -> None:
    import dure

    versions = [title for level, title in document("CHANGELOG.md").headings if level == 2]
    assert versions[0].startswith(f"{dure.__version__} ")


def test_no_file_names_who_or_what_wrote_it() -> None:
    found = []
    for path in committed():
        content = path.read_bytes()
        if OF_THE_CLIENT.fullmatch(ids(path)):
            content = CLIENT.sub(b"", content)
        if path != Path(__file__) and MAKERS.search(content):
            found.append(path)
    assert found == []


@pytest.mark.parametrize("text", ["see issue #12", "in the last session", "fixed in #7", "the helper wrote", "by AI"])
def test_text_about_the_making_would_be_found(text: str) -> None:
    assert NOT_OURS.search(text)
