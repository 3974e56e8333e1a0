"""The law of event time inside Redis: an older row never replaces a newer one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha1
from itertools import chain
from typing import Any

import hiredis

GUARDED_AT_ONCE = 200
"""Keys of one run of the script: Redis does nothing else meanwhile."""

# ARGV: the codec; then for each key its value, and when Redis may forget it (ms, 0 is never).
# Orders are compared as 32-bit halves: a number of Lua has 53 bits. What is no string under our
# key is nobody's row: it is replaced, and does not fail the others.
GUARDED_PUT = """
local function order_of(codec, value)
  if codec == 'packed' then
    if #value < 24 or string.byte(value, 1) ~= 1 then return 0, 0, 0 end
    local low, high = struct.unpack('<I4I4', value, 17)
    return high, low, string.byte(value, 2) % 2
  end
  local version, time = string.match(value, ';%d+;(%d+);(%d+);%x+$')
  if not version then version, time = string.match(value, ';%d+;(%d+);(%d+)$') end
  if not version then return 0, 0, 0 end
  return 0, tonumber(time), tonumber(version) == 0 and 1 or 0
end
local codec, written = ARGV[1], 0
for at, key in ipairs(KEYS) do
  local value, forget = ARGV[at * 2], ARGV[at * 2 + 1]
  local old = redis.pcall('GET', key)
  local newer = true
  if type(old) == 'string' then
    local high, low, dead = order_of(codec, value)
    local old_high, old_low, old_dead = order_of(codec, old)
    if high ~= old_high then newer = high > old_high
    elseif low ~= old_low then newer = low > old_low
    else newer = dead >= old_dead end
  end
  if newer then
    if forget == '0' then redis.call('SET', key, value)
    else redis.call('SET', key, value, 'PXAT', forget) end
    written = written + 1
  end
end
return written
"""

SCRIPT_SHA = sha1(GUARDED_PUT.encode(), usedforsecurity=False).hexdigest()

_pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command

LOAD_SCRIPT = _pack(("SCRIPT", "LOAD", GUARDED_PUT))
"""The command that gives a server the script."""


def put_command(codec: str, rows: Sequence[tuple[bytes, bytes, int]]) -> bytes:
    """Return the run of the script for keys, their values, and when Redis may forget them (ms)."""
    keys = [key for key, _, _ in rows]
    arguments = chain.from_iterable((value, forget) for _, value, forget in rows)
    return _pack(("EVALSHA", SCRIPT_SHA, len(keys), *keys, codec, *arguments))
