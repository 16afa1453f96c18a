-- Posts, removes or reads notices, which all gateways see for a limited time. Times are in µs.
-- KEYS  1 the notices (hash: name -> until, owner and text)
-- ARGV  1 the name (empty: read all)  2 the owner, without spaces  3 the text  4 for how long (0: remove the owner's)
--       5 whether it may replace another owner's (0, 1)
-- Returns  µs for which another owner's notice holds that stays, else 0; or name, owner, text and µs left of each notice
local LONGEST = 600e6
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local function read(stored)
  local ends, owner, text = string.match(stored, '^(%d+) (%S+) (.*)$')
  local left = tonumber(ends) - now
  return left > 0 and left <= LONGEST and left or 0, owner, text  -- one that holds longer is from before the clock was set
end

if ARGV[1] == '' then
  local stored, notices = redis.call('HGETALL', KEYS[1]), {}
  for i = 1, #stored, 2 do
    local left, owner, text = read(stored[i + 1])
    if left > 0 then
      for _, value in ipairs({stored[i], owner, text, left}) do notices[#notices + 1] = value end
    else
      redis.call('HDEL', KEYS[1], stored[i])
    end
  end
  return notices
end

local stored = redis.call('HGET', KEYS[1], ARGV[1])
local left, owner = 0, ARGV[2]
if stored then left, owner = read(stored) end
if left > 0 and owner ~= ARGV[2] and ARGV[5] == '0' then return {left} end
if ARGV[4] == '0' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s %s', now + ARGV[4], ARGV[2], ARGV[3]))
end
return {0}
