"""What runs in Redis for caches: one round trip each, as one atomic step.

A key that holds something else than text, which nobody here has written, counts as missing.
"""

from __future__ import annotations

from cluster_kit_aiocache.script import Script

WRITE = Script(
    """
local items = tonumber(ARGV[2])
for i = 1, items do
  if ARGV[1] == '0' then
    redis.call('SET', KEYS[i], ARGV[i + 2])
  else
    redis.call('SET', KEYS[i], ARGV[i + 2], 'PX', ARGV[1])
  end
end
if #KEYS > items then
  return redis.call('MGET', unpack(KEYS, items + 1))
end
return {}
"""
)
"""Keys: items, then those to read. Arguments: milliseconds or 0, number of items, their values.
Returns what was read."""

SWAP = Script(
    """
local present = redis.call('EXISTS', KEYS[1]) == 1
local head = ''
if present then
  head = redis.pcall('GETRANGE', KEYS[1], 0, tonumber(ARGV[5]) - 1)
  if type(head) == 'table' then
    redis.call('DEL', KEYS[1])
    present = false
  end
end
local fits
if ARGV[1] == '0' then
  fits = not present
else
  fits = present and string.sub(head, 1, #ARGV[2]) == ARGV[2]
end
local done = 1
if not fits then
  if not present or ARGV[3] == '' or head ~= string.sub(ARGV[3], 1, tonumber(ARGV[5])) then
    done = 0
  end
elseif ARGV[3] == '' then
  redis.call('DEL', KEYS[1])
elseif ARGV[4] == '0' then
  redis.call('SET', KEYS[1], ARGV[3])
else
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
end
local found = {}
if #KEYS > 1 then
  found = redis.call('MGET', unpack(KEYS, 2))
end
return {done, found}
"""
)
"""Keys: one, then those to read. Arguments: whether something is expected, how it begins, the new
value or nothing to remove it, milliseconds or 0, length of a head. Returns 1 when it was done, now
or by an earlier run whose answer was lost, and what was read."""

RENEW = Script(
    """
for i = 1, #KEYS do
  local present = redis.call('TYPE', KEYS[i]).ok == 'string'
  if present == (ARGV[2] == '1') then
    if present then
      redis.call('DEL', KEYS[i])
    end
    if ARGV[1] == '0' then
      redis.call('SET', KEYS[i], ARGV[i + 2])
    else
      redis.call('SET', KEYS[i], ARGV[i + 2], 'PX', ARGV[1])
    end
  end
end
return redis.call('MGET', unpack(KEYS))
"""
)
"""Keys: versions. Arguments: milliseconds or 0, whether those that have a value are renewed or
those that have none, the new ones. Returns what each key has then. A full server refuses to store,
but allows it after a key was removed."""

REMOVE = Script(
    """
local heads = {}
for i = 1, #KEYS do
  local head = redis.pcall('GETRANGE', KEYS[i], 0, 63)
  if type(head) == 'table' then
    head = ''
  end
  heads[i] = head
  redis.call('DEL', KEYS[i])
end
return heads
"""
)
"""Keys: all. Returns how each value began, nothing where was none."""

INCREMENT = Script(
    """
local count = redis.call('GET', KEYS[2])
if not count then
  local done = redis.pcall('INCRBY', KEYS[1], ARGV[1])
  if type(done) == 'table' then
    if not string.find(done.err, 'not an integer') and not string.find(done.err, 'WRONGTYPE') then
      return done
    end
    redis.call('SET', KEYS[1], ARGV[1])
  end
  count = redis.call('GET', KEYS[1])
  if count == ARGV[1] and ARGV[2] ~= '0' then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
  end
  redis.call('SET', KEYS[2], count, 'PX', ARGV[3])
end
local found = {}
if #KEYS > 2 then
  found = redis.call('MGET', unpack(KEYS, 3))
end
return {count, found}
"""
)
"""Keys: the counter, where this call notes its count, then those to read. Arguments: amount,
milliseconds or 0, milliseconds for which the call may be repeated. Returns the counter, in digits,
for a number of a script is exact up to 2^53, and what was read; a call that is repeated counts
once."""
