"""What became of each accepted job: what ran, by the marks, beside what the system says.

A job is one number of the load. It is *lost* if it was accepted and no run of it came to an end: it was never begun, or
it was cut short and not begun again. It is *wrong in history* if the system's answer about an id that it gave out
contradicts the marks: not final, unknown, SUCCESS without a run, or anything but SUCCESS (or another value) after one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from chaos.marks import BEGIN, END, Mark
from chaos.systems import Answer

_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Tally:
    accepted: int
    ran: int
    """Jobs that ran to an end at least once."""
    more_than_once: int
    """Jobs that were begun more than once, under whatever id."""
    lost: int
    wrong: int
    never_begun: int
    cut_short: int
    two_ids: int
    """Jobs whose key was answered with more than one id."""
    unasked: int
    """Ids about which the system gave no answer at all; they count as wrong."""
    repeats: Mapping[str, int]
    """Why jobs were begun again, as far as the marks tell."""
    wrongs: Mapping[str, int]
    examples: Mapping[str, Sequence[str]] = field(default_factory=dict)


def count(
    ids: Mapping[int, Sequence[str]], marks: Sequence[Mark], answers: Mapping[str, Answer], killed: Set[int]
) -> Tally:
    by_number: dict[int, list[Mark]] = {}
    for mark in marks:
        by_number.setdefault(mark.number, []).append(mark)
    examples: dict[str, list[str]] = {}
    never = [n for n in ids if n not in by_number]
    cut = [n for n in ids if n in by_number and not any(mark.kind == END for mark in by_number[n])]
    repeats = Counter(why for number in ids for why in _repeats(by_number.get(number, ()), killed))
    wrongs: Counter[str] = Counter()
    wrong: set[int] = set()
    for number, given in ids.items():
        for job_id in dict.fromkeys(given):
            if why := _wrong(number, job_id, answers.get(job_id), by_number.get(number, ())):
                wrongs[why] += 1
                wrong.add(number)
                _note(examples, why, job_id, by_number.get(number, ()), answers.get(job_id))
    for why, numbers in (("never begun", never), ("cut short", cut)):
        for number in numbers:
            job_id = ids[number][-1]
            _note(examples, why, job_id, by_number.get(number, ()), answers.get(job_id))
    asked = {job_id for given in ids.values() for job_id in given}
    return Tally(
        accepted=len(ids),
        ran=len(ids) - len(never) - len(cut),
        more_than_once=sum(_begun(by_number.get(number, ())) > 1 for number in ids),
        lost=len(never) + len(cut),
        wrong=len(wrong),
        never_begun=len(never),
        cut_short=len(cut),
        two_ids=sum(len(set(given)) > 1 for given in ids.values()),
        unasked=len(asked - answers.keys()),
        repeats=dict(repeats),
        wrongs=dict(wrongs),
        examples=examples,
    )


def _begun(marks: Iterable[Mark]) -> int:
    return sum(mark.kind == BEGIN for mark in marks)


def _repeats(marks: Iterable[Mark], killed: Set[int]) -> Iterable[str]:
    """Why each run but the first was begun."""
    ended: set[tuple[str, int]] = set()
    before: Mark | None = None
    for mark in marks:
        if mark.kind == END:
            ended.add((mark.job_id, mark.pid))
            continue
        if before is not None:
            yield _why_again(before, mark, ended, killed)
        before = mark


def _why_again(before: Mark, again: Mark, ended: Set[tuple[str, int]], killed: Set[int]) -> str:
    if before.job_id != again.job_id:
        return "submitted again: the answer to the first request was lost"
    if (before.job_id, before.pid) not in ended:
        return "killed while it ran" if before.pid in killed else "begun again before its end"
    if before.pid in killed:
        return "its process was killed before the acknowledgement"
    return "delivered again after a run that came to its end"


def _wrong(number: int, job_id: str, answer: Answer | None, marks: Iterable[Mark]) -> str | None:
    ran = any(mark.kind == END and mark.job_id == job_id for mark in marks)
    if answer is None:
        return "no answer"
    if not answer.final:
        return f"{answer.state}, though it ran" if ran else f"{answer.state} for ever, and it did not run"
    if not ran:
        return "SUCCESS, though it did not run" if answer.succeeded else None
    if not answer.succeeded:
        return f"{answer.state}, though it ran"
    return None if answer.value == number else "another result"


def _note(examples: dict[str, list[str]], why: str, job_id: str, marks: Iterable[Mark], answer: Answer | None) -> None:
    noted = examples.setdefault(why, [])
    if len(noted) < _EXAMPLES:
        runs = "; ".join(f"{mark.kind} at {mark.at:.3f} in {mark.pid} as {mark.job_id}" for mark in marks)
        said = f"{answer.state} {answer.detail}" if answer else "nothing"
        noted.append(f"{job_id}: said {said}; marks: {runs or 'none'}")
