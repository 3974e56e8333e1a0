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
# What an order is, `Codec.order` says. A number of Lua has 53 bits, so times are compared as 32-bit
# halves, or as their digits after how many there are. What is no string under our key is nobody's
# row: it is replaced, and does not fail the others.
GUARDED_PUT = r"""
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
