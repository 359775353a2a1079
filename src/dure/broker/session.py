"""A session: one store of one process, as the file and its other users see it."""

from __future__ import annotations

import os
from pathlib import Path

from dure.broker.database import Database
from dure.broker.liveness import SessionLock
from dure.broker.wake import WakeSocket


class Session:
    """The lock and the wake socket are there before the row is, so nobody sees a session that seems dead."""

    def __init__(self, path: Path, database: Database) -> None:
        self.process = os.getpid()
        self.lock = SessionLock(path)
        try:
            self.ear = WakeSocket()
            with database.write() as db:
                cursor = db.execute("INSERT INTO sessions (lock, port) VALUES (?, ?)", (self.lock.name, self.ear.port))
        except BaseException:
            self.lock.release()
            raise
        self.id = int(cursor.lastrowid or 0)

    def end(self) -> None:
        self.lock.release()
        self.ear.close()
