"""A gateway and its workers, each a process of its own, on one broker and one ledger.

`python -m tests.acceptance.site gateway`, or `worker …`, is such a process; the environment says where everything is.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from dure.settings import Settings
from tests.services.service import free_port

CHECKOUT = Path(__file__).parents[2]
PATIENCE = 30.0
TASKS = "tests.acceptance.tasks"


def until(found: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come within {PATIENCE:g} s")


@dataclass
class Site:
    folder: Path
    environ: dict[str, str]
    port: int = field(default_factory=free_port)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> Settings:
        """As its processes read them from their environment."""
        names = {name.removeprefix("DURE_").lower(): value for name, value in self.environ.items()}
        return Settings(_env_file=None, **names)  # type: ignore[arg-type]

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False, **options)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def start(self, name: str, *argv: str, **environ: str) -> subprocess.Popen[bytes]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("DURE_", "CELERY_"))}
        environment = inherited | {"PYTHONPATH": f"{CHECKOUT / 'src'}:{CHECKOUT}"} | self.environ | environ
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *argv], cwd=self.folder, env=environment, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def start_gateway(self, **environ: str) -> subprocess.Popen[bytes]:
        return self.start("gateway", "tests.acceptance.site", "gateway", DURE_PORT=str(self.port), **environ)

    def start_worker(self, name: str, *argv: str, stock: bool = False) -> subprocess.Popen[bytes]:
        common = ["-n", f"{name}@here", "-l", "INFO", "--without-mingle", "--without-gossip", *argv]
        return self.start(name, "tests.acceptance.site", "stock" if stock else "worker", *common)

    def await_gateway(self) -> None:
        with self.client() as client:

            def answers() -> bool:
                assert self.processes[0].poll() is None, self.log("gateway").read_text()
                with contextlib.suppress(httpx.TransportError):
                    return client.get("/healthz").status_code == 200
                return False

            until(answers, "the gateway")

    def await_worker(self, name: str) -> None:
        until(lambda: b" ready." in self.log(name).read_bytes(), f"the worker {name}")

    def await_tasks(self, *names: str, headers: dict[str, str] | None = None) -> None:
        """Until a worker has announced them."""
        with self.client(headers=headers) as client:

            def announced() -> bool:
                told = client.get("/api/v1/tasks").json().get("tasks", [])
                return {task["name"] for task in told} >= set(names)

            until(announced, f"the announcement of {names}")

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()


@contextlib.contextmanager
def site(**environ: str) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="dure-site-") as folder:
        place = Site(Path(folder), {"DURE_HOME": folder} | environ)
        try:
            yield place
        finally:
            place.close()


def main(part: str, *argv: str) -> int:
    from dure.settings import load

    settings = load()
    if part == "gateway":
        import uvicorn

        from dure.gateway.app import create_app

        uvicorn.run(create_app(settings), host=settings.host, port=settings.port, log_level="warning")
        return 0
    if part == "stock":
        import dure.broker  # noqa: F401 - teaches kombu dure://
        from tests.acceptance.tasks import app

        app.conf.update(broker_url=settings.broker, broker_connection_retry_on_startup=True)
        results = settings.results or ""
        app.conf.result_backend = results.replace("dure://", "dure.worker.backend:Backend+dure://") or None
        return int(app.start(argv=["worker", "-P", "solo", *argv]) or 0)
    from dure.worker.adopt import adopt
    from dure.worker.load import load as load_app
    from dure.worker.run import run

    found = load_app(TASKS)
    adopt(found, settings, broker_url=settings.broker)
    return run(found, settings, argv)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
