"""The short form of `make chaos`: few jobs, and the faults that every change must survive."""

import asyncio

import pytest
from rich.console import Console

from chaos import cell
from chaos.cell import Outcome, Plan
from chaos.faults import FAULTS
from chaos.report import tell
from chaos.systems import SYSTEMS

JOBS = 300
CELLS = {"dure": ["worker-kill", "gateway-kill", "rabbitmq-kill"], "dure-embedded": ["worker-kill", "gateway-kill"]}


async def _strike_all() -> dict[str, Outcome]:
    return {outcome.system: outcome for outcome in await asyncio.gather(*(_strike(name) for name in CELLS))}


async def _strike(system: str) -> Outcome:
    faults = [FAULTS[name] for name in CELLS[system]]
    return await cell.run(SYSTEMS[system], faults, Plan(jobs=JOBS, blows=len(faults), patience=25))


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """Of all cells, which run side by side: most of their time is waiting for what was killed to come back."""
    for kind in (SYSTEMS[name] for name in CELLS):
        for server in kind.kinds.values():
            if why := server.missing():
                pytest.skip(why)
    found = asyncio.run(_strike_all())
    for outcome in found.values():
        tell(Console(), outcome)  # what a failure needs to be understood
    return found


@pytest.mark.parametrize("system", CELLS)
def test_every_accepted_job_runs_whatever_is_killed(system: str, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[system]
    assert outcome.blows >= len(CELLS[system])
    assert (outcome.tally.accepted, outcome.tally.lost) == (JOBS, 0), outcome.tally.examples


@pytest.mark.parametrize("system", CELLS)
def test_history_tells_of_every_job_what_happened(system: str, outcomes: dict[str, Outcome]) -> None:
    assert outcomes[system].tally.wrong == 0, outcomes[system].tally.examples


@pytest.mark.parametrize("system", CELLS)
def test_a_key_that_is_sent_again_after_a_failure_is_one_job(system: str, outcomes: dict[str, Outcome]) -> None:
    assert not [why for why in outcomes[system].tally.repeats if why.startswith("submitted again")]
