"""What the checkout holds: locks that fit pyproject.toml, and nothing of the machine it was written on."""

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).parents[2]
IGNORED = {".git", ".venv", ".dure", ".hypothesis", "build", "dist", "node_modules", "__pycache__"}
TRACES = re.compile(
    rb"(?<![\w.])/work/|/tmp/venv|/opt/pypi|/root/\.pyenv"
    rb"|\bpypi\.org|pythonhosted\.org|registry\.npmjs\.org|registry\.yarnpkg\.com"
    rb"|--(extra-|default-)?index-url|--find-links|\b_?index[-_]url\s*="
)
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)(?P<marker>[^\\]*)\\$")


def committed() -> Iterator[Path]:
    """The files a commit would hold; without git (an unpacked archive), all but what is ignored by name."""
    if (CHECKOUT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True).stdout.decode().split("\0")
        yield from (path for name in names if name and (path := CHECKOUT / name).is_file())
        return
    for folder, subfolders, names in os.walk(CHECKOUT):
        subfolders[:] = [name for name in subfolders if name not in IGNORED and not name.endswith("_cache")]
        yield from (Path(folder, name) for name in names)


def locked(name: str) -> dict[str, str]:
    lines = (CHECKOUT / "requirements" / name).read_text().splitlines()
    pins = [PIN.match(line) for line in lines if not line.startswith("    --hash=sha256:")]
    assert None not in pins, f"{name} has a line that is neither a pin nor a hash"
    return {canonicalize_name(pin["name"]): pin["version"] for pin in pins if pin}


def wanted(*keys: str) -> list[Requirement]:
    value = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    for key in keys:
        value = value[key]
    return [Requirement(line) for line in value]


def test_no_file_names_a_registry_or_this_machine() -> None:
    found = [
        f"{path.relative_to(CHECKOUT)}: {match[0].decode()}"
        for path in committed()
        if path != Path(__file__)
        for match in TRACES.finditer(path.read_bytes())
    ]
    assert found == []


@pytest.mark.parametrize("trace", ["cp /work/main", "https://files.pythonhosted.org/x", "--extra-index-url y"])
def test_a_trace_would_be_found(trace: str) -> None:
    assert TRACES.search(trace.encode())


@pytest.mark.parametrize(
    ("lock", "keys"),
    [
        ("base.txt", ("project", "dependencies")),
        ("build.txt", ("build-system", "requires")),
        ("dev.txt", ("dependency-groups", "dev")),
        ("dev.txt", ("dependency-groups", "examples")),
        ("examples.txt", ("dependency-groups", "examples")),
        ("bench.txt", ("dependency-groups", "bench")),
        ("dev.txt", ("project", "dependencies")),
    ],
)
def test_a_lock_holds_a_fitting_pin_of_every_requirement(lock: str, keys: tuple[str, ...]) -> None:
    pins = locked(lock)
    for requirement in wanted(*keys):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{requirement} is not in requirements/{lock}: run `make lock`"
        assert requirement.specifier.contains(pins[name], prereleases=True), f"{requirement}: run `make lock`"


def test_the_locks_agree() -> None:
    others = locked("base.txt") | locked("build.txt") | locked("examples.txt")
    dev = locked("dev.txt")
    assert others.items() <= dev.items()
    assert {name: version for name, version in locked("bench.txt").items() if dev.get(name, version) != version} == {}


def test_the_javascript_clients_lock_has_a_hash_of_every_package_and_no_address() -> None:
    packages = json.loads((CHECKOUT / "clients/js/package-lock.json").read_text())["packages"]
    own = packages.pop("")
    wanted = json.loads((CHECKOUT / "clients/js/package.json").read_text())
    assert own["devDependencies"] == wanted["devDependencies"]
    assert {name for name, package in packages.items() if not package["integrity"].startswith("sha512-")} == set()
    assert {name for name, package in packages.items() if "resolved" in package} == set()


@pytest.mark.parametrize("script", [".ci/run", "scripts/lock", "scripts/services", "scripts/venv"])
def test_a_script_can_be_run(script: str) -> None:
    assert os.access(CHECKOUT / script, os.X_OK)
