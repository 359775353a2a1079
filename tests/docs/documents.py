"""The project's Markdown, read for what tests can hold against the code: headings, tables, links, code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PATHS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "examples/*/*.md", "clients/*/*.md", "deploy/**/*.md")
    for path in CHECKOUT.glob(pattern)
)

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- not run(?:, (?P<part>[^:]+))?: (?P<why>[^>]+?) -->\n+\Z")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`[^`]*`")


@dataclass(frozen=True)
class Block:
    """A fenced block. `skipped` is what of it is not run: nothing, lines beginning with a word, or "" for all."""

    place: str
    language: str
    text: str
    skipped: str | None

    @property
    def lines(self) -> list[str]:
        """What of it is run."""
        if self.skipped is None:
            return self.text.splitlines()
        return [line for line in self.text.splitlines() if self.skipped and not line.startswith(self.skipped)]


@dataclass(frozen=True)
class Document:
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @property
    def name(self) -> str:
        return str(self.path.relative_to(CHECKOUT))

    @cached_property
    def prose(self) -> str:
        """The text with every block's lines emptied."""
        return _FENCE.sub(lambda found: "\n" * found[0].count("\n"), self.text)

    @cached_property
    def blocks(self) -> list[Block]:
        found = []
        for fence in _FENCE.finditer(self.text):
            mark = _MARK.search(self.text, 0, fence.start())
            line = self.text.count("\n", 0, fence.start()) + 1
            skipped = None if mark is None else mark["part"] or ""
            found.append(Block(f"{self.name}:{line}", fence[1], fence[2], skipped))
        return found

    @cached_property
    def headings(self) -> list[tuple[int, str]]:
        return [(len(found[1]), found[2].strip()) for found in re.finditer(r"^(#+) (.+)$", self.prose, re.MULTILINE)]

    @cached_property
    def anchors(self) -> set[str]:
        return {_anchor(title) for _, title in self.headings}

    def links(self) -> Iterator[str]:
        yield from _LINK.findall(self.prose)

    def section(self, title: str) -> str:
        """What stands below a heading, up to the next of its level or above."""
        lines = self.prose.splitlines()
        heading = next(line for line in lines if re.fullmatch(rf"#+ {re.escape(title)}", line))
        level = len(heading) - len(heading.lstrip("#"))
        below = lines[lines.index(heading) + 1 :]
        for number, line in enumerate(below):
            if re.match(rf"#{{1,{level}}} ", line):
                return "\n".join(below[:number])
        return "\n".join(below)


def document(name: str) -> Document:
    return Document(CHECKOUT / name)


def tables(text: str) -> list[list[list[str]]]:
    """Each table's rows below its head, cell by cell."""
    found: list[list[list[str]]] = []
    for lines in re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in lines.splitlines()]
        found.append([[cell.strip(" |") for cell in row] for row in rows[2:]])
    return found


def code(cell: str) -> list[str]:
    """What stands between backticks."""
    return [found.strip("`") for found in _CODE.findall(cell)]


def _anchor(title: str) -> str:
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")
