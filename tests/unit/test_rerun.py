"""Which nodes are run again."""

from typing import Any

from dure.job import Reason, State
from dure.ledger.rerun import History, Rerun, Row
from dure.workflow import Edge, Kind

Rows = dict[str, dict[str, Any]]

FAILED = {"state": State.FAILURE, "reason": Reason.ERROR}
UPSTREAM = {"state": State.FAILURE, "reason": Reason.UPSTREAM_FAILED}


def history(needs: dict[str, str], **told: dict[str, Any]) -> History:
    """Rows by id, succeeded tasks where nothing else is told; `needs` are ids by id, parted by spaces."""
    ids = {*needs, *(need for line in needs.values() for need in line.split()), *told}
    given = {
        job_id: {"node": job_id, "kind": Kind.TASK, "state": State.SUCCESS} | told.get(job_id, {}) for job_id in ids
    }
    edges = [Edge(job_id=a, name=b, needs=b) for a, line in needs.items() for b in line.split()]
    return History([Row(id=job_id, **fields) for job_id, fields in given.items()], edges)


def rerun(found: History, *seeds: str) -> Rerun:
    return found.rerun(seeds)


def test_a_node_is_run_again_with_all_that_depend_on_it_and_no_other() -> None:
    found = rerun(history({"b": "a", "c": "b", "d": "a", "e": "c d"}), "b")
    assert found.copied == {"b": "b", "c": "c", "e": "e"}
    assert not found.waiting
    assert not found.dropped


def test_a_dependant_that_waits_goes_on_waiting() -> None:
    found = rerun(history({"b": "a", "c": "b"}, c={"state": State.WAITING}), "b")
    assert found.copied == {"b": "b"}
    assert found.waiting == {"c"}


def mapped(**told: dict[str, Any]) -> History:
    """A map over what `source` returned, of two items, and who collects them."""
    rows: Rows = {
        "map": {"node": "m", "kind": Kind.MAP, "replaced_by": "all"},
        "all": {"node": "m", "kind": Kind.VALUE, "parent_id": "map"},
        "m.0": {"parent_id": "map"},
        "m.1": {"parent_id": "map"},
    }
    rows = {job_id: fields | told.get(job_id, {}) for job_id, fields in rows.items()} | {
        job_id: fields for job_id, fields in told.items() if job_id not in rows
    }
    return history({"map": "source", "all": "m.0 m.1", "end": "all"}, **rows)


def test_of_a_map_only_the_items_that_failed_are_run_again() -> None:
    found = rerun(mapped(**{"m.1": FAILED, "all": UPSTREAM, "end": UPSTREAM}), "m.1", "all", "end")
    assert found.copied == {"m.1": "m.1", "all": "all", "end": "end"}
    assert not found.dropped


def test_a_map_whose_source_is_run_again_is_made_anew() -> None:
    found = rerun(mapped(), "source")
    assert found.copied == {"source": "source", "all": "map", "end": "end"}
    assert found.dropped == {"m.0": "all", "m.1": "all"}


def test_a_map_that_is_named_is_made_anew() -> None:
    found = rerun(mapped(), "all")
    assert found.copied == {"all": "map", "end": "end"}
    assert set(found.dropped) == {"m.0", "m.1"}


def test_a_map_that_could_not_be_made_is_made_anew() -> None:
    found = rerun(
        history(
            {"map": "source"},
            map={"node": "m", "kind": Kind.MAP, "replaced_by": "all"},
            all={"node": "m", "kind": Kind.VALUE, "parent_id": "map", **UPSTREAM},
        ),
        "all",
    )
    assert found.copied == {"all": "map"}


def test_what_the_dropped_ones_made_is_dropped_with_them() -> None:
    found = rerun(
        mapped(
            **{
                "m.1": {"replaced_by": "value"},
                "value": {"node": "m.1", "kind": Kind.VALUE, "parent_id": "m.1"},
                "m.1.x": {"parent_id": "m.1"},
            }
        ),
        "source",
    )
    assert set(found.dropped) == {"m.0", "value", "m.1.x"}


def test_what_was_run_again_before_is_made_anew_once() -> None:
    found = rerun(
        mapped(
            **{
                "m.1": {"replaced_by": "again"},
                "again": {"node": "m.1", "parent_id": "map"},
                "all": {"replaced_by": "all-again"},
                "all-again": {"node": "m", "kind": Kind.VALUE, "parent_id": "map"},
            }
        ),
        "source",
    )
    assert found.copied["all-again"] == "map"
    assert set(found.dropped) == {"m.0", "again"}


def test_what_was_skipped_or_may_fail_is_no_failure() -> None:
    row = Row(id="a", node="a", kind=Kind.TASK, state=State.FAILURE, reason=Reason.ERROR, continues=True)
    assert not row.failed
    assert not Row(id="a", node="a", kind=Kind.TASK, state=State.REVOKED, reason=Reason.SKIPPED).failed
    assert Row(id="a", node="a", kind=Kind.TASK, state=State.REVOKED, reason=Reason.REVOKED).failed
