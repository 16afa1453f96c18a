-- Notes that a gateway asks this server for its slots; a beat that was held up on its way does not count. Times are in µs.
-- KEYS  1 when each gateway was heard (sorted set)  2 this server (hash)
-- ARGV  1 the gateway  2 when it sent this, 0 if it only asks for the time  3 the server's run_id
local DEAD, TOO_LATE = 30e6, 1e6
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[3] then
  redis.call('HSET', KEYS[2], 'epoch', ARGV[3], 'since', string.format('%.0f', now))
end
local sent_at = tonumber(ARGV[2])
if math.abs(now - sent_at) < TOO_LATE then
  redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 2 * DEAD)
end
return {now, redis.call('ZCOUNT', KEYS[1], now - DEAD, now + 1e6)}
