"""What came of a run, as Markdown."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import celery

from tests.celery_suite.suite import KINDS, Outcome

Outcomes = Mapping[str, Sequence[Outcome]]


def counted(outcomes: Iterable[Outcome]) -> str:
    """Passed, failed, skipped."""
    number = Counter(outcome.how for outcome in outcomes)
    return f"{number['passed']} / {number['failed']} / {number['skipped']}"


def markdown(first: Outcomes, second: Outcomes) -> str:
    """`second` has those that failed at first."""
    found = {kind: _with_second(outcomes, second.get(kind, ())) for kind, outcomes in first.items()}
    lines = [f"Celery {celery.__version__}; passed / failed / skipped", ""]
    lines += _table(found)
    lines += ["", "Passed only when run again, alone:", ""]
    lines += _each((kind, [o for o in second.get(kind, ()) if o.how == "passed"]) for kind in found)
    lines += ["", "Failed where the stock pool passes:", ""]
    lines += _each((kind, _behind(outcomes, found.get(KINDS[kind].stock, ()))) for kind, outcomes in found.items())
    lines += ["", "Failed in the stock pool, too, or where there is none beside it:", ""]
    lines += _each((kind, _others(outcomes, found.get(KINDS[kind].stock, ()))) for kind, outcomes in found.items())
    return "\n".join(lines) + "\n"


def _with_second(outcomes: Sequence[Outcome], second: Iterable[Outcome]) -> list[Outcome]:
    later = {(outcome.file, outcome.name): outcome for outcome in second}
    return [later.get((outcome.file, outcome.name), outcome) for outcome in outcomes]


def _table(found: Outcomes) -> list[str]:
    files = dict.fromkeys(outcome.file for outcomes in found.values() for outcome in outcomes)
    lines = [_row("file", *(KINDS[kind].title for kind in found)), _row(*["---"] * (len(found) + 1))]
    for file in files:
        lines.append(_row(file, *(counted(o for o in outcomes if o.file == file) for outcomes in found.values())))
    return [*lines, _row("all", *(counted(outcomes) for outcomes in found.values()))]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _behind(outcomes: Iterable[Outcome], stock: Iterable[Outcome]) -> list[Outcome]:
    passed = {(outcome.file, outcome.name) for outcome in stock if outcome.how == "passed"}
    return [o for o in outcomes if o.how == "failed" and (o.file, o.name) in passed]


def _others(outcomes: Sequence[Outcome], stock: Iterable[Outcome]) -> list[Outcome]:
    behind = _behind(outcomes, stock)
    return [outcome for outcome in outcomes if outcome.how == "failed" and outcome not in behind]


def _each(found: Iterable[tuple[str, Sequence[Outcome]]]) -> list[str]:
    lines = [
        f"- {KINDS[kind].title}: {outcome.file} `{outcome.name}`" + (f": {outcome.reason}" if outcome.reason else "")
        for kind, outcomes in found
        for outcome in outcomes
    ]
    return lines or ["None."]
