import os
import shlex
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.services.service import HOST, Service


@dataclass(kw_only=True)
class PostgreSQL(Service):
    name = "postgres"
    programs = ("/usr/lib/postgresql/*/bin/postgres", "postgres")
    stop_signal = signal.SIGINT  # a "fast" shutdown: sessions are ended, not waited for
    last_word = b"stop\n"  # killed, it would leave its System V shared memory behind

    @property
    def url(self) -> str:
        return self._url("postgres")

    def _url(self, database: str) -> str:
        return f"postgresql://postgres@{HOST}:{self.port}/{database}"

    def database(self, template: str = "template1") -> str:
        """The URL of a new database, a copy of `template`."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self._url(name)

    def forget(self, url: str) -> None:
        """Drop a database; whoever is connected to it is cut off."""
        self.execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def _prepare(self) -> None:
        if os.geteuid() == 0:  # the server refuses to run as root
            shutil.chown(self.folder, "postgres", "postgres")

    def _command(self) -> list[str]:
        server, data = self._program(), str(self.folder / "data")
        initdb = [str(Path(server).with_name("initdb")), "-D", data, "-U", "postgres", "-A", "trust"]
        initdb += ["--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"]
        options = {"listen_addresses": HOST, "port": self.port, "unix_socket_directories": ""}
        options |= {"max_connections": 200, "log_checkpoints": "off"}
        if not self.durable:
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        run = [server, "-D", data, *(part for key, value in options.items() for part in ("-c", f"{key}={value}"))]
        script = f"[ -s {shlex.quote(data)}/PG_VERSION ] || {shlex.join(initdb)} >/dev/null; exec {shlex.join(run)}"
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
        return [*user, "sh", "-ec", script]

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True
