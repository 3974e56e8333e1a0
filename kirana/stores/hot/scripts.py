"""Lua scripts of the hot tier. `kirana.stores.hot.base` describes leases, marks and copies.

A lease is NUL, "L" and its token. A mark is NUL, "P", and for each writer its token and the time at
which its mark ends, in 13 digits. No generation begins with NUL, so a copy is neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from kirana.redis.script import Script

T = TypeVar("T")

KEYS_AT_ONCE = 200
"""Maximum number of keys per run of a script. Redis serves no other client during a run."""

BYTES_AT_ONCE = 1 << 20
"""Maximum number of bytes of copies per run of a script, if it has several."""

# A value that is not a string, such as a list, is not of Kirana. `pcall` makes it an error, which
# is a table, so it is replaced.
_ENTRY = """
local function entry(key)
  local found = redis.pcall('GET', key)
  return type(found) == 'string' and found or false
end
"""

LEASE = Script(
    _ENTRY
    + r"""
local token, life_ms, generation, leased = ARGV[1], ARGV[2], ARGV[3], 0
for _, key in ipairs(KEYS) do
  local found = entry(key)
  if not found
    or (string.byte(found, 1) ~= 0 and string.sub(found, 1, #generation) ~= generation) then
    redis.call('SET', key, '\0L' .. token, 'PX', life_ms)
    leased = leased + 1
  end
end
return leased
"""
)
"""Takes leases. ARGV: the token, the life in milliseconds, the generation."""

FILL = Script(
    _ENTRY
    + r"""
local lease, filled = '\0L' .. ARGV[1], 0
for i, key in ipairs(KEYS) do
  if entry(key) == lease then
    redis.call('SET', key, ARGV[i * 2], 'PX', ARGV[i * 2 + 1])
    filled = filled + 1
  end
end
return filled
"""
)
"""Stores copies. ARGV: the token, then a copy and its TTL in milliseconds per key."""

# A mark is a list of tokens of writers, each with the time in Unix milliseconds at which it ends.
# `others` returns the part of the list that belongs to other writers and has not ended.
_TOKENS = r"""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function others(found, token)
  if not found or string.sub(found, 1, 2) ~= '\0P' then return '' end
  local kept, size = {}, #token + 13
  for at = 3, #found, size do
    local part = string.sub(found, at, at + size - 1)
    local ends = tonumber(string.sub(part, #token + 1)) or 0
    if string.sub(part, 1, #token) ~= token and ends > now then kept[#kept + 1] = part end
  end
  return table.concat(kept)
end
"""

MARK = Script(
    _ENTRY
    + _TOKENS
    + r"""
local token, life_ms = ARGV[1], ARGV[2]
local mine = token .. string.format('%013d', now + life_ms)
for _, key in ipairs(KEYS) do
  redis.call('SET', key, '\0P' .. others(entry(key), token) .. mine, 'PX', life_ms)
end
return #KEYS
"""
)
"""Marks keys. ARGV: the token of the writer, the life in milliseconds."""

UNMARK = Script(
    _ENTRY
    + _TOKENS
    + r"""
for _, key in ipairs(KEYS) do
  local kept = others(entry(key), ARGV[1])
  if kept == '' then redis.call('DEL', key)
  else redis.call('SET', key, '\0P' .. kept, 'KEEPTTL') end
end
return #KEYS
"""
)
"""Removes the marks of a writer, and copies and leases. ARGV: the token of the writer."""


def batches(items: list[T]) -> Iterator[list[T]]:
    """Yield the items of a list, `KEYS_AT_ONCE` at a time."""
    for start in range(0, len(items), KEYS_AT_ONCE):
        yield items[start : start + KEYS_AT_ONCE]


def fill_batches(rows: list[tuple[bytes, bytes, int]]) -> Iterator[list[tuple[bytes, bytes, int]]]:
    """Yield keys, copies and TTLs in batches of `KEYS_AT_ONCE` keys and `BYTES_AT_ONCE` bytes."""
    batch: list[tuple[bytes, bytes, int]] = []
    size = 0
    for key, copy, ttl in rows:
        if batch and (len(batch) == KEYS_AT_ONCE or size + len(copy) > BYTES_AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append((key, copy, ttl))
        size += len(copy)
    if batch:
        yield batch
