"""A workflow in a ledger comes to what a model of it in plain Python comes to, whatever happens to it on the way, also
when a transaction is cut off in between and made again."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    run_state_machine_as_test,
)

from tests.conformance.workflow_machine import MORE, WorkflowMachine


def small_ones(machine: Callable[[], WorkflowMachine], count: int, steps: int) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=count * MORE, stateful_step_count=steps))


def large_ones(machine: Callable[[], WorkflowMachine], count: int) -> None:
    """Up to 200 nodes, and a random way through them."""

    @settings(max_examples=count * MORE)
    @given(seed=st.integers(0, 2**32))
    def go(seed: int) -> None:
        random = Random(seed)
        one = machine()
        try:
            one.submit(random, random.randint(60, 200), None, None)
            one.check()
            for _ in range(10):
                one.now += 1
                one.much_ends(random, random.choice([None, 3, 9]))
                one.check()
            if random.random() < 0.3:
                one.somebody_cancels_it(True, None)
            one.bring_to_an_end()
            if one.model.may_retry(None):
                one.run_again(None, random.choice([None, 5, 15]))
                one.check()
                one.bring_to_an_end()
        finally:
            one.close()

    go()


@pytest.fixture
def on_a_file(migrated_file: Path, tmp_path: Path) -> Callable[[], WorkflowMachine]:
    class OnAFile(WorkflowMachine):
        def __init__(self) -> None:
            path = tmp_path / "ledger.db"
            for end in ("", "-wal", "-shm"):
                Path(f"{path}{end}").unlink(missing_ok=True)
            shutil.copy(migrated_file, path)
            self.url = f"sqlite:///{path}"
            self.session = sqlite3.connect(path)
            self.session.row_factory = sqlite3.Row
            super().__init__()

        def close(self) -> None:
            self.session.close()
            super().close()

        def rows(self, query: str) -> list[dict[str, Any]]:
            return [dict(row) for row in self.session.execute(query)]

    return OnAFile


@pytest.fixture
def on_a_server(postgres_url: str, migrated_database: str) -> Callable[[], WorkflowMachine]:
    url = postgres_url.rpartition("/")[0] + "/" + migrated_database

    class OnAServer(WorkflowMachine):
        def __init__(self) -> None:
            self.url = url
            self.session = psycopg.connect(url, autocommit=True, row_factory=psycopg.rows.dict_row)
            self.session.execute("TRUNCATE jobs, job_tags, queues, workflows, edges, feed, feed_marks RESTART IDENTITY")
            super().__init__()

        def close(self) -> None:
            super().close()
            self.session.close()

        def rows(self, query: str) -> list[dict[str, Any]]:
            return self.session.execute(query.encode()).fetchall()

    return OnAServer


def test_small_workflows_in_a_file_do_what_the_model_does(on_a_file: Callable[[], WorkflowMachine]) -> None:
    small_ones(on_a_file, 12, 20)


def test_large_workflows_in_a_file_do_what_the_model_does(on_a_file: Callable[[], WorkflowMachine]) -> None:
    large_ones(on_a_file, 2)


def test_small_workflows_on_a_server_do_what_the_model_does(on_a_server: Callable[[], WorkflowMachine]) -> None:
    small_ones(on_a_server, 4, 20)


def test_large_workflows_on_a_server_do_what_the_model_does(on_a_server: Callable[[], WorkflowMachine]) -> None:
    large_ones(on_a_server, 1)
