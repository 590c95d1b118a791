"""What runs in the server. Each script may be repeated: a lost answer changes nothing."""

from __future__ import annotations

FENCE_KEEP_MS = 7 * 24 * 3600 * 1000
"""How long a fence is kept after the last grant. Later the server's clock goes on with it."""

# The fence is the last plus one, or the server's clock in microseconds where that is more: it grows
# as long as the counter survives or the clock does not go back. Such numbers are exact until 2255.
ACQUIRE = """
local held = redis.call('GET', KEYS[1])
if held == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return {1, redis.call('GET', KEYS[2]) or '0'}
end
if held then
  return {0, tostring(redis.call('PTTL', KEYS[1]))}
end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local fence = tonumber(redis.call('GET', KEYS[2]) or '0') + 1
if now > fence then fence = now end
fence = string.format('%.0f', fence)
redis.call('SET', KEYS[2], fence, 'PX', ARGV[3])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1, fence}
"""
"""Keys: lock, fence. Arguments: value, its milliseconds, those of the fence. Returns granted or
not, and the fence or the milliseconds that are left to the holder."""

RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
"""
"""Keys: lock. Arguments: value, milliseconds. Returns 1, or 0 when it is not this one's."""

RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('PUBLISH', ARGV[2], 'r')
  return 1
end
return 0
"""
"""Keys: lock. Arguments: value, channel of those who wait. Returns 1, or 0 as above."""
