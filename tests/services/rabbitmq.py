import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.services.service import HOST, Service, ServiceFailed, free_port
from tests.services.supervisor import descendants


@dataclass(kw_only=True)
class RabbitMQ(Service):
    """Its management plugin is on (without its statistics), because that is the fast way to make a vhost."""

    name = "rabbitmq"
    programs = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server")

    management_port: int = field(default_factory=free_port)
    distribution_port: int = field(default_factory=free_port)
    epmd_port: int = field(default_factory=free_port)
    more: str = ""  # further lines of rabbitmq.conf
    advanced: str = "[]"

    @property
    def url(self) -> str:
        return self._url("dure")

    def _url(self, vhost: str) -> str:
        return f"amqp://guest:guest@{HOST}:{self.port}/{vhost}"

    def vhost(self) -> str:
        """The URL of a new, empty vhost."""
        name = f"test-{next(self._numbers)}"
        self.api("PUT", f"vhosts/{name}")
        return self._url(name)

    def forget(self, url: str) -> None:
        """Delete a vhost; whoever is connected to it is cut off."""
        self.api("DELETE", f"vhosts/{url.rpartition('/')[2]}")

    def api(self, method: str, path: str, body: str | None = None) -> bytes:
        """One request to the management API, `path` below /api/."""
        connection = http.client.HTTPConnection(HOST, self.management_port, timeout=30)
        token = base64.b64encode(b"guest:guest").decode()
        headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}
        with contextlib.closing(connection):
            connection.request(method, f"/api/{path}", body, headers)
            response = connection.getresponse()
            content = response.read()
        if response.status >= 400:
            raise ServiceFailed(self.name, f"answered {response.status} to {method} {path}", content.decode())
        return content

    def user(self, url: str, name: str, *, may_declare: str) -> str:
        """The URL of a vhost for a user who can make those queues and exchanges whose name matches."""
        vhost = url.rpartition("/")[2]
        self.api("PUT", f"users/{name}", json.dumps({"password": "guest", "tags": ""}))
        allowed = {"configure": may_declare, "write": ".*", "read": ".*"}
        self.api("PUT", f"permissions/{vhost}/{name}", json.dumps(allowed))
        return url.replace("guest:guest", f"{name}:guest")

    def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl` says; takes about a second."""
        program = Path(self._program()).with_name("rabbitmqctl")
        command = [str(program), "--quiet", *arguments]
        return subprocess.run(command, env=self._environment(), check=True, capture_output=True, text=True).stdout

    def alarm(self, on: bool) -> None:
        """Whether it is short of memory, so that it blocks whoever publishes next."""
        self.ctl("set_vm_memory_high_watermark", "0.0000001" if on else "0.4")

    def freeze(self) -> None:
        """It answers nothing any more, and its connections stay: what a machine does that hangs."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        for process in descendants(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def _prepare(self) -> None:
        (self.folder / "environment").touch()
        (self.folder / "advanced.config").write_text(f"{self.advanced}.\n")
        (self.folder / "plugins").write_text("[rabbitmq_management].\n")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {HOST}:{self.port}\n"
            f"management.tcp.ip = {HOST}\n"
            f"management.tcp.port = {self.management_port}\n"
            "management_agent.disable_metrics_collector = true\n"
            "default_vhost = dure\n"
            "disk_free_limit.absolute = 50MB\n"
            "log.console = true\n"
            "log.console.level = warning\n"
            f"log.file = false\n{self.more}"
        )

    def _command(self) -> list[str]:
        return [self._program()]

    def _environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RABBITMQ_", "ERL_"))}
        return inherited | {
            "HOME": str(self.folder),
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": str(self.epmd_port),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "environment"),
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_NODENAME": f"dure-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(self.port),
            # No busy waiting: the cores are shared with the tests. No Erlang distribution off this machine.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none"
            " -kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _answers(self) -> bool:
        with socket.create_connection((HOST, self.port), timeout=5) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            if not connection.recv(1):
                return False
        with socket.create_connection((HOST, self.management_port), timeout=5):
            return True
