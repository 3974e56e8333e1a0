"""A Lua script that writes rows in Redis, so that an older row never replaces a newer one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kirana.clock import FUTURE, MAX_FUTURE_MS
from kirana.redis.script import Argument, Script
from kirana.stores.row_keys import block_keys
from kirana.stores.rows import RowBlock, Times

GUARDED_AT_ONCE = 200
"""Maximum number of keys per run of a script.

Redis serves no other client during a run, so a run must be short.
"""

# KEYS holds the keys of the rows. ARGV holds the name of the codec, then two arguments per key: the
# value, and the time at which Redis may drop the row (Unix milliseconds, 0 = never).
#
# `order_of` returns the same order as `RowCodec.write_order`, in three values. Lua numbers are
# exact only up to 53 bits, so the first two values together are the event time. For packed rows
# they are its upper and lower 32 bits. For text rows they are the number of its decimal digits, and
# the digits. The third value is 1 for a tombstone and 0 for any other row.
#
# `digits_of` returns the digits of a number without leading zeros. It returns nil if the text is
# not a number of at most 20 digits, or if the number exceeds `limit`.
_COMPARE = r"""
local function digits_of(text, limit)
  if #text > 20 or not string.find(text, '^%d+$') then return nil end
  local digits = string.gsub(text, '^0+', '')
  if #digits > #limit or (#digits == #limit and digits > limit) then return nil end
  return digits
end
local function order_of_text(value)
  local plain = string.gsub(value, '\\.', '..')
  local parts = {}
  for part in string.gmatch(plain .. ';', '([^;]*);') do parts[#parts + 1] = part end
  local expiry = digits_of(parts[2] or '0', '4294967295')
  local version = digits_of(parts[3] or '1', '65535')
  local time = digits_of(parts[4] or '0', '18446744073709551615')
  local fingerprint = parts[5] or '00000000'
  if #parts > 5 or not (expiry and version and time) or string.find(plain, '\\')
    or #fingerprint ~= 8 or string.find(fingerprint, '[^0-9a-f]') then return 0, '', 0 end
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
local function time_of(codec, value)
  local high, low = order_of(codec, value)
  return codec == 'packed' and high * 4294967296 + low or tonumber(low) or 0
end
local function compare(codec, value, old)
  local high, low, deleted = order_of(codec, value)
  local old_high, old_low, old_deleted = order_of(codec, old)
  if high ~= old_high then return high > old_high and 1 or -1 end
  if low ~= old_low then return low > old_low and 1 or -1 end
  return deleted - old_deleted
end
local function set(key, value, drop_at)
  if drop_at == '0' then redis.call('SET', key, value)
  else redis.call('SET', key, value, 'PXAT', drop_at) end
end
"""

# If the time of a row is too far ahead, nothing is written: nothing could replace the row.
#
# A value that is not a string, such as a list, is not a row of Kirana. It is replaced, because an
# error would make the run fail for all keys.
_WRITE = r"""
local codec, written = ARGV[1], 0
local latest = redis.call('TIME')[1] * 1000 + MAX_FUTURE_MS
for i in ipairs(KEYS) do
  if time_of(codec, ARGV[i * 2]) > latest then
    return redis.error_reply('CLOCK row ' .. i .. ' is FUTURE by the clock of Redis')
  end
end
for i, key in ipairs(KEYS) do
  local value, drop_at = ARGV[i * 2], ARGV[i * 2 + 1]
  local old = redis.pcall('GET', key)
  if type(old) ~= 'string' or compare(codec, value, old) >= 0 then
    set(key, value, drop_at)
    written = written + 1
  end
end
return written
"""

ScriptRow = tuple[bytes, bytes, int]
"""A row's key, its value, and when Redis may drop it (Unix milliseconds, 0 = never)."""


def row_batches(block: RowBlock, drop_at_ms: Times) -> Iterator[list[ScriptRow]]:
    """Yield the rows of a block in batches, one for each run of a script."""
    rows = list(zip(block_keys(block), block.value_list(), drop_at_ms.tolist(), strict=True))
    for start in range(0, len(rows), GUARDED_AT_ONCE):
        yield rows[start : start + GUARDED_AT_ONCE]


class GuardScript(Script):
    """A Lua script that takes rows and stores those that may replace the stored ones.

    The reply of the script is the number of rows that it has stored.
    """

    def command(self, codec: str, rows: Sequence[ScriptRow]) -> bytes:
        """Return the command that runs the script over rows, as bytes to send."""
        keys = [key for key, _, _ in rows]
        arguments: list[Argument] = [codec]
        for _, value, drop_at_ms in rows:
            arguments += (value, drop_at_ms)
        return self.run(keys, arguments)


WRITE = GuardScript(
    (_COMPARE + _WRITE).replace("MAX_FUTURE_MS", str(MAX_FUTURE_MS)).replace("FUTURE", FUTURE)
)
"""Stores the rows that are not stale. See `FeatureStore.write`.

The reply is an error if the event time of a row is too far ahead of the clock of Redis.
"""
