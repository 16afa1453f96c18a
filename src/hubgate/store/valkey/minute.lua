-- Counts the requests and the tokens of a gateway key in buckets of one second. A minute touches 61 of them.
-- KEYS  1 the counts of the key (hash: r or t and the second)
-- ARGV  1 most requests (0: any number)  2 most tokens (0: any number)  3 tokens to add; then no request is counted
-- Returns  1 what is exhausted (0: nothing, 1: requests, 2: tokens)  2 µs until it is not
local time = redis.call('TIME')
local second, microsecond = tonumber(time[1]), tonumber(time[2])
if ARGV[3] ~= '0' then
  redis.call('HINCRBY', KEYS[1], 't' .. second, ARGV[3])
  return {0, 0}
end

local counts, sums, stale = {r = {}, t = {}}, {r = 0, t = 0}, {}
local stored = redis.call('HGETALL', KEYS[1])
for i = 1, #stored, 2 do
  local kind, at, count = string.sub(stored[i], 1, 1), tonumber(string.sub(stored[i], 2)), tonumber(stored[i + 1])
  if at < second - 60 or at > second + 1 then  -- those in the future were counted before the clock was set back
    stale[#stale + 1] = stored[i]
  else
    counts[kind][at] = count
    sums[kind] = sums[kind] + count
  end
end
if #stale > 0 then redis.call('HDEL', KEYS[1], unpack(stale)) end

local function wait_for(kind, most)
  local excess, wait = sums[kind] - most, 0
  for at = second - 60, second + 1 do
    if most == 0 or excess < 0 then break end
    excess = excess - (counts[kind][at] or 0)
    wait = (at + 61 - second) * 1000000 - microsecond
  end
  return wait
end

local wait = wait_for('t', tonumber(ARGV[2]))
if wait > 0 then return {2, wait} end
wait = wait_for('r', tonumber(ARGV[1]))
if wait > 0 then return {1, wait} end
if ARGV[1] ~= '0' then redis.call('HINCRBY', KEYS[1], 'r' .. second, 1) end
return {0, 0}
