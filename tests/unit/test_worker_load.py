"""Finding the application that `celery -A` would find, and saying what is wrong where there is none."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dure.errors import ConfigurationError
from dure.worker.load import load


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def refusal(target: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(target)
    (problem,) = caught.value.problems
    assert problem.remedy
    return f"{problem.place}: {problem.message}"


APP = "from celery import Celery\n{name} = Celery('{name}', set_as_current=False)\n"


@pytest.mark.parametrize(
    ("file", "name", "target"),
    [
        ("one.py", "app", "one"),
        ("two.py", "celery", "two"),
        ("three.py", "whatever", "three:whatever"),
        ("four.py", "whatever", "four.whatever"),
        ("fifth/celery.py", "app", "fifth"),
        ("sixth/celery.py", "app", "sixth.celery"),
    ],
)
def test_an_application_is_found_as_celery_finds_it(folder: Path, file: str, name: str, target: str) -> None:
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    if path.parent != folder:
        (path.parent / "__init__.py").touch()
    path.write_text(APP.format(name=name))
    assert load(target).main == name


def test_a_missing_module_is_named() -> None:
    assert "no module 'nowhere'" in refusal("nowhere:app")


def test_a_missing_import_inside_the_module_shows_itself(folder: Path) -> None:
    (folder / "broken.py").write_text("import not_installed_here\n")
    message = refusal("broken")
    assert "No module named 'not_installed_here'" in message
    assert "broken.py:1" in message


def test_an_error_inside_the_module_shows_itself(folder: Path) -> None:
    (folder / "wrong.py").write_text("x = 1\nNone.nothing\n")
    assert "AttributeError" in refusal("wrong")


def test_an_error_inside_a_package_s_celery_module_shows_itself(folder: Path) -> None:
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").touch()
    (folder / "pack" / "celery.py").write_text("import not_installed_here\n")
    assert "not_installed_here" in refusal("pack")


@pytest.mark.parametrize("target", ["empty", "empty:app", "empty:number"])
def test_a_module_without_an_application_is_told_so(folder: Path, target: str) -> None:
    (folder / "empty.py").write_text("number = 1\n")
    assert "no Celery application" in refusal(target)
