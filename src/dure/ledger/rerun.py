"""Which nodes of a workflow are run again, and which only have to wait anew; pure.

A node that became nodes of its own, as a map does or a task that returned a workflow, is run again where one of its
own needs is, or where nothing that it made can be blamed; what it made is dropped then, for it is made anew. Else only
those of its nodes are run again that failed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from dure.job import Reason, State
from dure.workflow import Edge, Kind


class Row(Struct, frozen=True, kw_only=True):
    """A node's row, also one that was replaced."""

    id: str
    node: str
    kind: Kind
    state: State
    reason: str | None = None
    continues: bool = False
    replaced_by: str | None = None
    parent_id: str | None = None
    started_at: float | None = None
    finished_at: float | None = None

    @property
    def counts(self) -> bool:
        return self.replaced_by is None

    @property
    def failed(self) -> bool:
        ended_badly = self.state in (State.FAILURE, State.REVOKED) and self.reason != Reason.SKIPPED
        return ended_badly and not self.continues


class Rerun(Struct, frozen=True, kw_only=True):
    """`copied` is by the id of the node that counts the row to run again, mostly itself; `waiting` have not begun and
    only wait anew; `dropped` is by id the node, by the id that counts, that makes it anew."""

    copied: Mapping[str, str]
    waiting: frozenset[str]
    dropped: Mapping[str, str]

    @property
    def ended(self) -> frozenset[str]:
        """What may not run any more for it to be done."""
        return frozenset(self.copied) | frozenset(self.dropped)


class History:
    """All rows of a workflow, and its needs. `makers` are by the id of the node that stands for what they became."""

    def __init__(self, found: Iterable[Row], needs: Iterable[Edge]) -> None:
        self.rows = {row.id: row for row in found}
        self.needs: dict[str, list[Edge]] = defaultdict(list)
        for edge in needs:
            self.needs[edge.job_id].append(edge)
        self.makers = dict(self._find_makers())
        self._made: dict[str, list[str]] = defaultdict(list)
        for row in self.rows.values():
            if row.parent_id is not None:
                self._made[row.parent_id].append(row.id)
        self._wanted_by: dict[str, list[str]] = defaultdict(list)
        for row in self.rows.values():
            if row.counts:
                for source in {row.id, self.makers.get(row.id, row.id)}:
                    for edge in self.needs[source]:
                        self._wanted_by[self.now(edge.needs)].append(row.id)

    def _find_makers(self) -> Iterator[tuple[str, str]]:
        """By the id of the VALUE that counts, the row that became it; the VALUE alone may have been run again since."""
        for row in self.rows.values():
            made = None if row.kind is Kind.VALUE else self._value_after(row)
            while made is not None and not made.counts:
                made = self._value_after(made)
            if made is not None:
                yield made.id, row.id

    def _value_after(self, row: Row) -> Row | None:
        after = self.rows.get(row.replaced_by or "")
        return after if after is not None and after.node == row.node and after.kind is Kind.VALUE else None

    def now(self, job_id: str) -> str:
        """The node that counts in its place."""
        while (row := self.rows.get(job_id)) is not None and row.replaced_by is not None:
            job_id = row.replaced_by
        return job_id

    def rerun(self, seeds: Sequence[str]) -> Rerun:
        """What is to run again with these."""
        reached = self._closure(seeds, lambda job_id: self._wanted_by[job_id])
        remade = {job_id for job_id in reached if job_id in self.makers and self._is_remade(job_id, reached)}
        dropped: dict[str, str] = {}
        for job_id in sorted(remade, key=lambda remade_id: len(self.rows[remade_id].node)):  # the outer ones first
            if job_id in dropped:
                continue
            for made in self._closure(self._made[self.makers[job_id]], lambda made: self._made[made]):
                if self.rows[made].counts and made != job_id:
                    dropped[made] = job_id
        copied, waiting = {}, set()
        for job_id in reached - dropped.keys():
            if job_id in remade:
                copied[job_id] = self.makers[job_id]
            elif self.rows[job_id].state is State.WAITING:
                waiting.add(job_id)
            else:
                copied[job_id] = job_id
        return Rerun(copied=copied, waiting=frozenset(waiting), dropped=dropped)

    def _is_remade(self, job_id: str, reached: set[str]) -> bool:
        maker = self.makers[job_id]
        if any(self.now(edge.needs) in reached for edge in self.needs[maker]):
            return True
        return not any(self.now(edge.needs) in reached for edge in self.needs[job_id])

    @staticmethod
    def _closure(seeds: Iterable[str], following: Callable[[str], Iterable[str]]) -> set[str]:
        reached: set[str] = set()
        left = list(seeds)
        while left:
            job_id = left.pop()
            if job_id not in reached:
                reached.add(job_id)
                left.extend(following(job_id))
        return reached
