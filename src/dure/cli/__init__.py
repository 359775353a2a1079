"""The command line: `dure up`, `serve`, `worker`, `submit`, `watch`, `jobs` and their like.

A module here is one command, or something that several of them share. What a command needs beyond the terminal
(Celery, FastAPI, SQLAlchemy) it imports when it runs, so that `dure --help` answers at once.
"""

from __future__ import annotations


def main() -> None:
    from dure.cli.commands import app

    app(prog_name="dure")
