"""The reader for the result backend that the settings name."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from dure.broker.results import Results
from dure.ledger.results import KEY, NoResults, RedisResults, ResultReader, Stored, stored
from dure.settings import Settings
from dure.url import file_path, scheme


class EmbeddedResults:
    """The SQLite file that workers on the embedded default store results in."""

    def __init__(self, url: str, limit: int) -> None:
        self._limit = limit
        self._results = Results(file_path(url))

    async def fetch(self, ids: Sequence[str]) -> Mapping[str, Stored]:
        keys = [(KEY + job_id).encode() for job_id in ids]
        return stored(ids, await asyncio.to_thread(self._results.get_many, keys), self._limit)

    async def close(self) -> None:
        await asyncio.to_thread(self._results.close)


def connect_results(settings: Settings) -> ResultReader:
    url = settings.results
    if url is None:
        return NoResults()
    kind = EmbeddedResults if scheme(url) == "dure" else RedisResults
    return kind(url, settings.result_limit)
