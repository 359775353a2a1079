"""The client's own tests, in Node."""

import subprocess
from pathlib import Path
from shutil import which

from tests.browser.page import CLIENT
from tests.services.chromium import need


def test_what_node_tests_of_the_client_holds(built: Path) -> None:
    node = which("node")
    need(node, "node is not installed: run `scripts/services node npm`")
    tests = sorted(str(path) for path in (CLIENT / "tests").glob("*.test.js"))
    told = subprocess.run(
        [str(node), "--test", *tests], cwd=CLIENT, capture_output=True, text=True, timeout=300, check=False
    )
    assert told.returncode == 0, told.stdout[-20_000:] + told.stderr
