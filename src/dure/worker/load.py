"""Find a Celery application by the name that `celery -A` takes."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from celery import Celery
from celery.app.utils import find_app

from dure.errors import ConfigurationError, Problem


def load(target: str) -> Celery:
    """The application in `module` or `module:attribute`, looked for in the current folder too.

    Raises ConfigurationError if there is no such module, if it fails while it is imported, or if it has no
    application.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = target.partition(":")[0]
    try:
        _import(module)
        found = find_app(target)
    except _Missing as exc:
        raise _problem(
            target,
            f"there is no module {str(exc)!r} in {folder} or on the Python path",
            "name the module of the Celery application as for `celery -A`, and start in its folder",
        ) from None
    except (AttributeError, ImportError):
        _import_submodule(target, f"{module}.celery")
        raise _without_application(target) from None
    if not isinstance(found, Celery):
        raise _without_application(target)
    return found


class _Missing(Exception):
    pass


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except Exception as exc:
        if not isinstance(exc, ModuleNotFoundError) or not _within(module, exc.name):
            raise _broken(module, exc) from exc
        parent = module.rpartition(".")[0]
        if exc.name != module or not parent:
            raise _Missing(exc.name) from None
        _import(parent)  # `package.attribute`, which Celery takes too


def _within(module: str, name: str | None) -> bool:
    return name is not None and f"{module}.".startswith(f"{name}.")


def _import_submodule(target: str, module: str) -> None:
    """Celery looks into `package.celery` and is silent if that fails; its failure is the real cause."""
    if ":" not in target and importlib.util.find_spec(module.partition(".")[0]) is not None:
        with suppress(_Missing):
            _import(module)


def _broken(module: str, exc: BaseException) -> ConfigurationError:
    frames = traceback.extract_tb(exc.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return _problem(
        module,
        f"the module fails while it is imported: {type(exc).__name__}: {exc}{place}",
        f"mend it until `python -c 'import {module}'` runs",
    )


def _without_application(target: str) -> ConfigurationError:
    return _problem(
        target,
        "there is no Celery application in it",
        "name it as `module:attribute`, where the attribute is the Celery() object",
    )


def _problem(place: str, message: str, remedy: str) -> ConfigurationError:
    return ConfigurationError([Problem(place, message, remedy)])
