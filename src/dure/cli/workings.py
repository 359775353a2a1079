"""The nodes of a workflow, with what a map or a sub-workflow became within the node that made it; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from dure.cli.branches import Branch, Level
from dure.workflow import Kind, On

if TYPE_CHECKING:
    from dure.ledger.flows import NodeView


class Workings:
    """The nodes of one workflow. A VALUE, or a MAP, contains the nodes whose names begin with its own and a dot."""

    def __init__(self, nodes: Iterable[NodeView]) -> None:
        self.nodes = {node.job.id: node for node in _in_order(nodes)}
        self._within = self._find_containers()
        self._members: dict[str | None, list[str]] = defaultdict(list)
        for job_id in self.nodes:
            self._members[self._within.get(job_id)].append(job_id)
        self._needs: dict[str, dict[str, On]] = {job_id: {} for job_id in self.nodes}
        self._branches: dict[str | None, Branch] = {}
        for node in self.nodes.values():
            for edge in node.needs:
                if edge.needs in self.nodes:
                    self._lift(edge.needs, node.job.id, edge.on)

    def branch(self, container: str | None = None) -> Branch:
        """What is drawn within a node; of None, at the top."""
        if container not in self._branches:
            level = Level(self.nodes, self._members[container], self._needs)
            self._branches[container] = level.branch()
        return self._branches[container]

    def is_container(self, node: NodeView) -> bool:
        return node.job.id in self._members

    def inside(self, node: NodeView) -> Iterator[NodeView]:
        """All that a node became, however deep."""
        left = [node.job.id]
        while left:
            for job_id in self._members.get(left.pop(), ()):
                yield self.nodes[job_id]
                left.append(job_id)

    def is_ready(self, node: NodeView) -> bool:
        """Whether all that it needs has ended."""
        return all(self.nodes[edge.needs].job.state.final for edge in node.needs if edge.needs in self.nodes)

    def _find_containers(self) -> dict[str, str]:
        made = {n.job.node: n.job.id for n in self.nodes.values() if n.job.node and n.kind in (Kind.VALUE, Kind.MAP)}
        within = {}
        for node in self.nodes.values():
            name = node.job.node or ""
            while "." in name:
                name = name.rpartition(".")[0]
                if name in made:
                    within[node.job.id] = made[name]
                    break
        return within

    def _lift(self, need: str, job_id: str, on: On) -> None:
        """An edge between nodes of two containers is one between those that stand side by side."""
        above = list(self._above(need))
        for below in self._above(job_id):
            for at, job_above in enumerate(above):
                if job_above == below:
                    return  # a container gathers what its parts return
                if self._within.get(job_above) == self._within.get(below):
                    is_whole = at == 0 and below == job_id
                    self._needs[below].setdefault(job_above, on if is_whole else On.SUCCESS)
                    return

    def _above(self, job_id: str | None) -> Iterator[str]:
        while job_id is not None:
            yield job_id
            job_id = self._within.get(job_id)


def _in_order(nodes: Iterable[NodeView]) -> list[NodeView]:
    """As they were given, but the numbered parts of one name by their numbers: one that was run again is made anew."""
    given = list(nodes)
    places: dict[str, list[int]] = defaultdict(list)
    for place, node in enumerate(given):
        before, _, number = (node.job.node or "").rpartition(".")
        if number.isdecimal():
            places[before].append(place)
    ordered = list(given)
    for held in places.values():
        by_number = sorted(held, key=lambda place: int((given[place].job.node or "").rpartition(".")[2]))
        for place, other in zip(held, by_number, strict=True):
            ordered[place] = given[other]
    return ordered
