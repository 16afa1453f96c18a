-- Leases a gateway its part of a limit that holds at any moment: `hubgate.core.traffic.leases`. Times are in µs.
-- KEYS  1 the leases of the limit (hash: gateway -> what it holds, whether it wants any, when, number of the question;
--         and '' -> the limit, the version of the configuration that it is from, when that was confirmed)
--       2 when each gateway was heard (sorted set)  3 this server (hash)
-- ARGV  1 the gateway  2 the limit  3 what it holds until it knows the answer  4 whether it wants any (0, 1)
--       5 gateways that it knows of  6 whether it was without contact (0, 1)  7 the number of its question
--       8 the server's run_id  9 the version of the configuration that 2 is from
-- Returns  what it may hold; -1 for a question that was overtaken by a later one
local LAPSED, SILENT, DEAD, TURN, FORGOTTEN, CONFIRMED = 5e6, 3e6, 30e6, 2e6, 600e6, 60e6
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local me, limit, holds, wants = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local function written(number) return string.format('%.0f', number) end
local function heard_within(span) return redis.call('ZCOUNT', KEYS[2], now - span, now + 1e6) end

local former = redis.call('HGET', KEYS[1], me)
if former and tonumber(string.match(former, '%d+$')) > tonumber(ARGV[7]) then return {-1} end

local known, version, confirmed = string.match(redis.call('HGET', KEYS[1], '') or '', '(%d+) (%d+) (%d+)')
local is_known = known and tonumber(ARGV[9]) <= tonumber(version) and math.abs(now - confirmed) < FORGOTTEN
if is_known then limit = tonumber(known) end
if not is_known or ARGV[9] == version and math.abs(now - confirmed) > CONFIRMED then
  redis.call('HSET', KEYS[1], '', table.concat({written(limit), ARGV[9], written(now)}, ' '))
end

local server = redis.call('HMGET', KEYS[3], 'epoch', 'since')
local age = server[1] == ARGV[8] and now - server[2] or 0
local gateways = math.max(1, heard_within(DEAD))
if age < DEAD or ARGV[6] == '1' then gateways = math.max(gateways, tonumber(ARGV[5])) end
-- Those that are silent may use their part by themselves.
local taken = math.max(0, gateways - math.max(1, heard_within(SILENT))) * math.floor(limit / gateways)

local busy = wants and {me} or {}
local stored = redis.call('HGETALL', KEYS[1])
for i = 1, #stored, 2 do
  local has, is_busy, at = string.match(stored[i + 1], '(%d+) (%d) (%d+)')
  local is_other = stored[i] ~= me and stored[i] ~= ''
  if is_other and math.abs(now - at) > LAPSED then
    redis.call('HDEL', KEYS[1], stored[i])
  elseif is_other then
    taken = taken + has
    if is_busy == '1' then busy[#busy + 1] = stored[i] end
  end
end

local granted = 0
if wants then
  table.sort(busy)
  local rank = 0
  for i = 1, #busy do if busy[i] == me then rank = i - 1 end end
  local turn = limit < #busy and math.floor(now / TURN) or 0  -- each has one in turn
  local fair = math.floor(limit / #busy) + ((rank + turn) % #busy < limit % #busy and 1 or 0)
  granted = math.max(0, math.min(fair, limit - taken))
  if age < LAPSED and gateways > 1 then granted = math.min(granted, holds) end  -- others may hold what it forgot
end
if wants or holds > 0 then
  local values = {written(math.max(granted, holds)), ARGV[4], written(now), ARGV[7]}
  redis.call('HSET', KEYS[1], me, table.concat(values, ' '))
else
  redis.call('HDEL', KEYS[1], me)
end
return {granted}
