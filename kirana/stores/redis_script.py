"""The law of event time inside Redis: an older row never replaces a newer one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from hashlib import sha1
from itertools import chain
from typing import Any

import hiredis

from kirana.stores.row_keys import block_keys
from kirana.stores.rows import RowBlock, Times

GUARDED_AT_ONCE = 200
"""Keys of one run of the script: Redis does nothing else meanwhile."""

_pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command

# ARGV: the codec; then for each key its value, and when Redis may forget it (ms, 0 is never).
# What an order is, `Codec.order` says. A number of Lua has 53 bits, so times are compared as 32-bit
# halves, or as their digits after how many there are.
_COMPARE = r"""
local function whole(text, most)
  if #text > 20 or not string.find(text, '^%d+$') then return nil end
  local digits = string.gsub(text, '^0+', '')
  if #digits > #most or (#digits == #most and digits > most) then return nil end
  return digits
end
local function order_of_text(value)
  local plain = string.gsub(value, '\\.', '..')
  local parts = {}
  for part in string.gmatch(plain .. ';', '([^;]*);') do parts[#parts + 1] = part end
  local expiry = whole(parts[2] or '0', '4294967295')
  local version = whole(parts[3] or '1', '65535')
  local time = whole(parts[4] or '0', '18446744073709551615')
  local print = parts[5] or '00000000'
  if #parts > 5 or not (expiry and version and time) or string.find(plain, '\\')
    or #print ~= 8 or string.find(print, '[^0-9a-f]') then return 0, '', 0 end
  if version ~= '' then return #time, time, 0 end
  if parts[1] ~= '' then return 0, '', 0 end
  return #time, time, 1
end
local function order_of(codec, value)
  if codec ~= 'packed' then return order_of_text(value) end
  if #value < 24 or string.byte(value, 1) ~= 1 then return 0, 0, 0 end
  local low, high = struct.unpack('<I4I4', value, 17)
  return high, low, string.byte(value, 2) % 2
end
local function compare(codec, value, old)
  local high, low, dead = order_of(codec, value)
  local old_high, old_low, old_dead = order_of(codec, old)
  if high ~= old_high then return high > old_high and 1 or -1 end
  if low ~= old_low then return low > old_low and 1 or -1 end
  return dead - old_dead
end
local function set(key, value, forget)
  if forget == '0' then redis.call('SET', key, value)
  else redis.call('SET', key, value, 'PXAT', forget) end
end
"""

# What is no string under our key is nobody's row: it is replaced, and does not fail the others.
_WRITE = r"""
local codec, written = ARGV[1], 0
for at, key in ipairs(KEYS) do
  local value, forget = ARGV[at * 2], ARGV[at * 2 + 1]
  local old = redis.pcall('GET', key)
  if type(old) ~= 'string' or compare(codec, value, old) >= 0 then
    set(key, value, forget)
    written = written + 1
  end
end
return written
"""

_BACK_FILL = r"""
local codec, kept = ARGV[1], 0
for at, key in ipairs(KEYS) do
  local value, forget = ARGV[at * 2], ARGV[at * 2 + 1]
  local old = redis.pcall('GET', key)
  local order = type(old) == 'string' and compare(codec, value, old) or 1
  if order == 0 and value ~= old then
    redis.call('DEL', key)
  elseif order > 0 then
    set(key, value, forget)
    kept = kept + 1
  end
end
return kept
"""


ScriptRow = tuple[bytes, bytes, int]
"""A key, its value, and when Redis may forget it in ms (0 = never)."""


def script_runs(block: RowBlock, forget_ms: Times) -> Iterator[list[ScriptRow]]:
    """Yield the rows of a block, as many as one run of a script takes."""
    rows = list(zip(block_keys(block), block.value_list(), forget_ms.tolist(), strict=True))
    for at in range(0, len(rows), GUARDED_AT_ONCE):
        yield rows[at : at + GUARDED_AT_ONCE]


class GuardScript:
    """A script over keys, their values, and when Redis may forget them."""

    def __init__(self, source: str) -> None:
        self.source = source

    @cached_property
    def sha(self) -> str:
        return sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    @cached_property
    def load(self) -> bytes:
        """The command that gives a server the script."""
        return _pack(("SCRIPT", "LOAD", self.source))

    def command(self, codec: str, rows: Sequence[ScriptRow]) -> bytes:
        """Return a run of the script for keys, values and times in ms (0 = never)."""
        keys = [key for key, _, _ in rows]
        arguments = chain.from_iterable((value, forget) for _, value, forget in rows)
        return _pack(("EVALSHA", self.sha, len(keys), *keys, codec, *arguments))


WRITE = GuardScript(_COMPARE + _WRITE)
"""See `FeatureStore.write`; answers with how many rows were not stale."""

BACK_FILL = GuardScript(_COMPARE + _BACK_FILL)
"""See `FeatureStore.back_fill`; answers with how many copies were kept."""
