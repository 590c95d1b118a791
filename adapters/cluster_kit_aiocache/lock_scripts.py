"""What runs in Redis for locks. Each script may be repeated: a lost answer changes nothing.

But for a request that comes when its repetition has been answered and, in between, released.
"""

from __future__ import annotations

from cluster_kit_aiocache.script import Script

FENCE_KEEP_MS = 7 * 24 * 3600 * 1000
"""How long a fence is kept after the last grant. Later the server's clock goes on with it."""

# The fence is the last plus one, or the server's clock in microseconds where that is more: it grows
# as long as the counter survives or the clock does not go back. Such numbers are exact until 2255.
# Where a stored one cannot grow nothing is granted, and that is said: nobody is to conclude it.
ACQUIRE = Script(
    """
local set = redis.pcall('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])
if not set or set.err then
  local held = redis.call('GET', KEYS[1])
  if not held then return set end
  if held ~= ARGV[1] then return {redis.call('PTTL', KEYS[1])} end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return redis.call('GET', KEYS[2]) or '0'
end
local last = redis.pcall('GET', KEYS[2]) or '0'
local fence = type(last) == 'string' and tonumber(last)
if not (fence and fence < 2^53 - 1) then
  redis.call('DEL', KEYS[1])
  if type(last) == 'table' then return last end
  return {-1, last}
end
local time = redis.call('TIME')
fence = math.max(math.floor(fence) + 1, time[1] * 1000000 + time[2])
redis.call('SET', KEYS[2], string.format('%.0f', fence), 'PX', ARGV[3])
return fence
"""
)
"""Keys: lock, fence. Arguments: value, its milliseconds, those of the fence. Returns the fence,
which is read sooner than a list; or when it was not granted, a list: of the milliseconds left when
it is somebody else's, of -1 and the stored fence when that cannot grow."""

# What sets a ttl may be late, for it was held up. So each change of it has a number, and an older
# one than what is stored changes nothing. First what a full server allows: then it allows the rest.
RENEW = Script(
    """
local held = redis.call('GET', KEYS[1])
local token, turn = string.match(held or '', '^(%x+)%.?(%d*) ')
if token ~= ARGV[2] or (tonumber(turn) or 0) > tonumber(ARGV[3]) then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
if held ~= ARGV[1] then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[4]) end
return 1
"""
)
"""Keys: lock. Arguments: value, its token and turn, milliseconds. Returns 1, or 0 when it is not
this one's, or not any more with that turn."""

LOOK = Script(
    """
return {redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1]), redis.call('GET', KEYS[2])}
"""
)
"""Keys: lock, fence. Returns value, milliseconds that are left, and fence, of one moment."""

RELEASE = Script(
    """
if string.match(redis.call('GET', KEYS[1]) or '', '^%x+') == ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('PUBLISH', ARGV[2], 'r')
  return 1
end
return 0
"""
)
"""Keys: lock. Arguments: token, channel of those who wait. Returns 1, or 0 when it is not its."""

# Scores are microseconds of the server, which are exact. Whoever comes too early is not noted.
# What was noted before the server's clock went back counts as if it were noted now, and so does
# whoever asks again: he did not hear that he was let in, and is so only now.
ADMIT = Script(
    """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local period = tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - period))
local moment = string.format('%.0f', now)
for _, token in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. moment, '+inf')) do
  redis.call('ZADD', KEYS[1], moment, token)
end
local noted = redis.call('ZSCORE', KEYS[1], ARGV[1])
if noted or redis.call('ZCARD', KEYS[1]) < tonumber(ARGV[2]) then
  redis.call('ZADD', KEYS[1], moment, ARGV[1])
  redis.call('PEXPIRE', KEYS[1], math.ceil(period / 1000))
  return 0
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return math.max(tonumber(first[2]) + period - now, 1)
"""
)
"""Keys: times of a quota. Arguments: token, limit, period in microseconds. Returns 0, or after how
many microseconds to ask again."""
