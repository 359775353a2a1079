"""Who may import whom, and how large and how named a module may be: the design's table."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
SOURCE = CHECKOUT / "src"

MAY_IMPORT: dict[str, set[str]] = {
    "root": set(),
    "broker": set(),
    "client": {"ledger", "workflows", "broker.store", "broker.results"},
    "ledger": {"workflows"},
    "workflows": set(),
    "schedules": {"client", "ledger"},
    "worker": {"broker"},
    "gateway": {"client", "ledger", "workflows", "schedules"},
    "console": set(),
    "cli": {"broker", "client", "ledger", "workflows", "schedules", "worker", "gateway", "console"},
    "contrib": {"broker", "client", "ledger", "workflows", "schedules", "worker", "gateway", "console"},
}
ONLY_IN: dict[str, set[str]] = {
    "celery": {"worker", "cli", "contrib"},
    "kombu": {"broker", "worker", "cli", "contrib"},
}
LAZILY = {
    ("dure", "client"),
    ("dure", "worker"),
    ("dure", "workflows"),
}  # a module, and the package it may import when asked for but not at import time
WITHOUT_KOMBU = "dure.broker.store"

LONGEST = 400
VAGUE = {"helper", "helpers", "util", "utils", "common", "manager", "managers"}


@dataclass(frozen=True)
class Import:
    line: int
    name: str
    lazy: bool


@dataclass(frozen=True)
class Module:
    name: str
    is_package: bool
    source: str

    @property
    def domain(self) -> str:
        if self.name == "dure.__main__":
            return "cli"
        parts = self.name.split(".")
        return parts[1] if len(parts) > 2 or (self.is_package and len(parts) == 2) else "root"

    def imports(self) -> Iterator[Import]:
        tree = ast.parse(self.source)
        lazy = {id(node) for block in ast.walk(tree) if _is_lazy(block) for node in ast.walk(block)}
        for node in ast.walk(tree):
            for name in self._names(node):
                yield Import(getattr(node, "lineno", 0), name, id(node) in lazy)

    def _names(self, node: ast.AST) -> list[str]:
        match node:
            case ast.Import(names=names):
                return [alias.name for alias in names]
            case ast.ImportFrom(module=module, names=names, level=level):
                origin = ".".join(part for part in (self._origin(level), module) if part)
                return [f"{origin}.{alias.name}" for alias in names]
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                return [name if not name.startswith(".") else self.name + name]
        return []

    def _origin(self, level: int) -> str:
        if level == 0:
            return ""
        parts = self.name.split(".")
        return ".".join(parts[: len(parts) - level + self.is_package])


def _is_lazy(node: ast.AST) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return True
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def modules(source: Path) -> list[Module]:
    found = []
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        found.append(Module(".".join(parts[:-1] if is_package else parts), is_package, path.read_text()))
    return found


def forbidden_imports(tree: list[Module]) -> list[str]:
    domains = {module.domain for module in tree}
    problems = [f"dure.{domain} has no rule" for domain in sorted(domains - MAY_IMPORT.keys())]
    for module in tree:
        for found in module.imports():
            if not _allowed(module, found, domains):
                problems.append(f"{module.name}:{found.line} imports {found.name}")
    return problems


def _allowed(module: Module, found: Import, domains: set[str]) -> bool:
    top, *rest = found.name.split(".")
    if top != "dure":
        return module.domain in ONLY_IN.get(top, {module.domain})
    target = rest[0] if rest and rest[0] in domains | MAY_IMPORT.keys() else "root"
    if target in {"root", module.domain}:
        return True
    if found.lazy and (module.name, target) in LAZILY:
        return True
    path = ".".join(rest)
    return any(f"{path}.".startswith(f"{allowed}.") for allowed in MAY_IMPORT.get(module.domain, ()))


def loaded_by(start: str, tree: list[Module]) -> set[str]:
    """Every name imported when `start` is: its own imports, its packages', and theirs in turn."""
    by_name = {module.name: module for module in tree}
    seen: set[str] = set()
    names = [start]
    while names:
        parts = names.pop().split(".")
        for name in (".".join(parts[:length]) for length in range(1, len(parts) + 1)):
            if name not in seen:
                seen.add(name)
                if name in by_name:
                    names += [found.name for found in by_name[name].imports() if not found.lazy]
    return seen


def test_every_module_imports_only_what_its_domain_may() -> None:
    assert forbidden_imports(modules(SOURCE)) == []


def test_the_embedded_brokers_store_loads_without_kombu() -> None:
    assert "kombu" not in loaded_by(WITHOUT_KOMBU, modules(SOURCE))


def test_no_module_is_longer_than_four_hundred_lines() -> None:
    folders = (CHECKOUT / name for name in ("src", "tests", "examples", "benchmarks", "chaos"))
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    assert [str(path) for path in paths if len(path.read_text().splitlines()) > LONGEST] == []


def test_no_module_has_a_vague_name() -> None:
    assert [m.name for m in modules(SOURCE) if VAGUE & set(m.name.replace(".", "_").split("_"))] == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("dure.job", "from dure.ledger import tables"),
        ("dure.job", "def late():\n    from dure import client"),
        ("dure.wire", "import celery"),
        ("dure", "from dure.client import Client"),
        ("dure.broker.store", "from dure.ledger.writes import add"),
        ("dure.client.link", "from dure.broker.transport import Transport"),
        ("dure.client.link", "from ..broker import transport"),
        ("dure.client.link", "import kombu"),
        ("dure.ledger.writes", "import dure.client"),
        ("dure.workflows.rows", "from dure.ledger import tables"),
        ("dure.workflows.canvas", "from celery import chain"),
        ("dure.ledger.writes", "from dure.broker.store import Store"),
        ("dure.worker.attempt", "from dure.client import Client"),
        ("dure.gateway.routes", "import importlib\nimportlib.import_module('dure.worker')"),
        ("dure.gateway.routes", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import celery.app"),
        ("dure.schedules.lease", "from dure.cli import main"),
        ("dure.stray.module", "import json"),
    ],
)
def test_an_offending_import_is_found(name: str, source: str) -> None:
    assert forbidden_imports([Module(name, name == "dure", source)]) != []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("dure", "def __getattr__(name):\n    from dure.client import Client"),
        ("dure.job", "from dure import errors\nfrom .event import Event"),
        ("dure.client.link", "from dure.broker.store import Store\nfrom dure.ledger import writes"),
        (
            "dure.worker.attempt",
            "import celery.app\nfrom kombu import Queue\nfrom dure.broker.transport import Transport",
        ),
        ("dure.__main__", "from dure.cli import main"),
    ],
)
def test_an_allowed_import_is_let_through(name: str, source: str) -> None:
    assert forbidden_imports([Module(name, name == "dure", source)]) == []


def test_kombu_is_found_behind_the_store() -> None:
    tree = [
        Module("dure.broker", True, ""),
        Module("dure.broker.store", False, "from . import rows"),
        Module("dure.broker.rows", False, "from kombu.utils import json"),
    ]
    assert "kombu" in loaded_by(WITHOUT_KOMBU, tree)
