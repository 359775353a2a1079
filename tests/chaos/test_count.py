"""What the harness calls lost, wrong and repeated: it must see what went wrong, or a clean count says nothing."""

from chaos.count import Tally, count
from chaos.marks import BEGIN, END, Mark
from chaos.systems import Answer

WELL = Answer(state="SUCCESS", final=True, succeeded=True, value=7)


def run(job_id: str = "a", pid: int = 1, *, cut: bool = False) -> list[Mark]:
    kinds = (BEGIN,) if cut else (BEGIN, END)
    return [Mark(number=7, pid=pid, at=0.0, kind=kind, job_id=job_id) for kind in kinds]


def tally(marks: list[Mark], answer: Answer | None = WELL, *, killed: set[int] | None = None) -> Tally:
    return count({7: ["a"]}, marks, {"a": answer} if answer else {}, killed or set())


def test_a_job_that_ran_once_and_is_told_so_is_well() -> None:
    found = tally(run())
    assert (found.accepted, found.ran, found.more_than_once, found.lost, found.wrong) == (1, 1, 0, 0, 0)


def test_a_job_without_a_mark_is_lost() -> None:
    found = tally([], Answer(state="FAILURE lost", final=True))
    assert (found.ran, found.lost, found.never_begun, found.wrong) == (0, 1, 1, 0)


def test_a_job_that_was_cut_short_and_not_begun_again_is_lost() -> None:
    found = tally(run(cut=True), Answer(state="STARTED", final=False))
    assert (found.ran, found.lost, found.cut_short) == (0, 1, 1)
    assert found.wrongs == {"STARTED for ever, and it did not run": 1}


def test_a_job_that_nobody_accepted_is_not_counted() -> None:
    assert count({}, run(), {}, set()).accepted == 0


def test_a_history_that_contradicts_the_marks_is_wrong() -> None:
    answers = {
        "QUEUED, though it ran": Answer(state="QUEUED", final=False),
        "FAILURE lost, though it ran": Answer(state="FAILURE lost", final=True),
        "another result": Answer(state="SUCCESS", final=True, succeeded=True, value=8),
        "no answer": None,
    }
    assert {why: tally(run(), answer).wrongs for why, answer in answers.items()} == {why: {why: 1} for why in answers}
    assert tally([]).wrongs == {"SUCCESS, though it did not run": 1}
    assert tally(run("other")).wrongs == {"SUCCESS, though it did not run": 1}


def test_why_a_job_was_begun_again_is_told_from_its_marks() -> None:
    assert tally(run(cut=True) + run(pid=2), killed={1}).repeats == {"killed while it ran": 1}
    again = "its process was killed before the acknowledgement"
    assert tally(run() + run(pid=2), killed={1}).repeats == {again: 1}
    redelivered = tally(run() + run(pid=2))
    assert redelivered.repeats == {"delivered again after a run that came to its end": 1}
    assert redelivered.more_than_once == 1
    twice = tally(run() + run("b"))
    assert twice.repeats == {"submitted again: the answer to the first request was lost": 1}


def test_a_key_that_was_answered_with_two_ids_is_told() -> None:
    assert count({7: ["a", "b"]}, run(), {"a": WELL, "b": WELL}, set()).two_ids == 1
