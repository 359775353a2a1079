"""A batch of results into Redis: one script, so one atomic round trip, for up to 16 MiB of them; and no SUCCESS is lost
to a later state.

Nearly all keys are new, and the script sets and announces them as Celery does (SETEX, PUBLISH). For a key that exists
it answers what is there. Only Python can read that (pickle, compression); if it is no SUCCESS it is replaced, provided
that nobody was faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Entry = tuple[bytes, bytes, int]  # key, value, seconds to live (0 for ever)

# Of one script's results. Redis cuts a connection that sends more than its client-query-buffer-limit (1 GiB) at once,
# and a batch that is too large would be so again each time.
MOST_BYTES = 16 * 1_048_576

_TELL = """
local function tell(key, value, seconds)
  if seconds > 0 then redis.call('SETEX', key, seconds, value) else redis.call('SET', key, value) end
  redis.call('PUBLISH', key, value)
end
"""
_STORE_NEW = f"""{_TELL}
local there = {{}}
for place, key in ipairs(KEYS) do
  local stored = redis.call('GET', key)
  if stored then
    there[#there + 1] = place - 1
    there[#there + 1] = stored
  else
    tell(key, ARGV[2 * place - 1], tonumber(ARGV[2 * place]))
  end
end
return there
"""
_REPLACE = f"""{_TELL}
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
tell(KEYS[1], ARGV[2], tonumber(ARGV[3]))
return 1
"""


def store_in_redis(client: Any, entries: Sequence[Entry], is_final: Callable[[Any], bool]) -> None:
    """Store each entry, unless what is there is final. Of two for one key the order holds."""
    again: list[Entry] = []
    for batch in in_scripts(entries):
        again += _store(client, batch, is_final)
    while again:
        again = _store(client, [again[0]], is_final) + again[1:]


def _store(client: Any, entries: Sequence[Entry], is_final: Callable[[Any], bool]) -> list[Entry]:
    """Returns those that somebody else changed meanwhile."""
    script = client.register_script(_STORE_NEW)
    arguments = [argument for _, value, seconds in entries for argument in (value, seconds)]
    there = script(keys=[key for key, _, _ in entries], args=arguments)
    replace = client.register_script(_REPLACE) if there else None
    lost = []
    for place, stored in zip(there[::2], there[1::2], strict=True):
        key, value, seconds = entries[place]
        if replace and not is_final(stored) and not replace(keys=[key], args=[stored, value, seconds]):
            lost.append(entries[place])
    return lost


def in_scripts(entries: Sequence[Entry]) -> list[list[Entry]]:
    """One after another. In one script a key that comes again would be found to be there already."""
    batches: list[list[Entry]] = [[]]
    keys: set[bytes] = set()
    size = 0
    for entry in entries:
        key, value, _ = entry
        if key in keys or (keys and size + len(value) > MOST_BYTES):
            batches.append([])
            keys, size = set(), 0
        keys.add(key)
        size += len(value)
        batches[-1].append(entry)
    return batches
