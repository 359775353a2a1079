"""The command line of one of several workers."""

import pytest

from dure.errors import ConfigurationError
from dure.worker.options import given, numbered


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        ([], "celery@%h-3"),
        (["-n", "mail@%h"], "mail@%h-3"),
        (["-nmail"], "mail-3"),
        (["--hostname=w%i@box", "-c", "4"], "w3@box"),
        (["-n", "w%I@%h"], "w-3@%h"),
    ],
)
def test_each_has_a_host_name_of_its_own(argv: list[str], name: str) -> None:
    command = numbered(argv, 3)
    assert command[: len(argv)] == argv
    assert given(command)["hostname"] == name


@pytest.mark.parametrize(
    ("argv", "place"),
    [
        (["-B"], "--beat"),
        (["--discard"], "--purge"),
        (["-D"], "--detach"),
        (["--pidfile", "worker.pid"], "--pidfile"),
        (["-S", "state-%n"], "--statedb"),
    ],
)
def test_what_only_one_worker_can_have_is_refused(argv: list[str], place: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        numbered(argv, 1)
    assert [problem.place for problem in caught.value.problems] == [place]


def test_files_with_the_workers_name_are_fine() -> None:
    assert numbered(["--pidfile", "/run/%p.pid", "--statedb", "%h"], 1)
