-- Gives slots of a rate limit: `hubgate.core.traffic.slots` says what they are and has the proof. Times are in µs.
-- KEYS  1 the rate limit (hash)  2 when each gateway was heard (sorted set)  3 this server (hash)
-- ARGV  1 slots wanted  2 slots per window  3 burst  4 window  5 the server's run_id  6 gateways that the asker knows
--       7 whether the clock was set (0, 1)  8 whether the asker was alone (0, 1)  9 pause  10 slow for  11 slow step
--       12 the version of the configuration that 2 and 3 are from
local DEAD, SILENT, CAREFUL, AHEAD, HORIZON, LATE, LONGEST_PAUSE = 30e6, 3e6, 62e6, 1e5, 2e6, 2e4, 310e6
local FORGOTTEN = 600e6
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local want, rate, burst, window = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local known = redis.call('HMGET', KEYS[1], 'free', 'epoch', 'since', 'changed', 'gateways', 'heard', 'pause', 'slow', 'slow_step',
  'version', 'rate', 'burst', 'confirmed', 'horizon', 'late', 'late_at')
local free, epoch, since, changed = tonumber(known[1]), known[2], tonumber(known[3]) or 0, tonumber(known[4]) or 0
local pause, slow, slow_step = tonumber(known[7]) or 0, tonumber(known[8]) or 0, tonumber(known[9]) or 0

local late, late_at = tonumber(known[15]) or 0, tonumber(known[16]) or 0
local version, confirmed = tonumber(ARGV[12]), tonumber(known[13]) or 0
local former_rate, former_burst = tonumber(known[11]), tonumber(known[12])
-- The numbers of the newest configuration hold, unless no gateway has known it for long: another database was set up.
if former_rate and version <= tonumber(known[10]) and math.abs(now - confirmed) < FORGOTTEN then
  if version == tonumber(known[10]) then confirmed = now end
  version, rate, burst = tonumber(known[10]), former_rate, former_burst
else
  confirmed = now
end

local function heard_within(span) return redis.call('ZCOUNT', KEYS[2], now - span, now + 1e6) end
local function written(number) return string.format('%.0f', number) end
local function per_window(careful) return careful and math.max(1, rate - burst + 1 - 2 * careful) or rate - burst + 1 end

local heard = math.max(1, heard_within(SILENT))
local gateways = math.max(heard, heard_within(DEAD))
local most = math.max(gateways, tonumber(ARGV[6]), tonumber(known[5]) or 1)
local horizon = math.ceil(math.max(HORIZON, (most + 1) * window / per_window(most)))
local widest = math.max(horizon, tonumber(known[14]) or 0)  -- that of former numbers, until their slots are over

local server = redis.call('HMGET', KEYS[3], 'epoch', 'since')
local is_sure = free and epoch == ARGV[5] and free <= now + 2 * widest + (slow > now and LONGEST_PAUSE or 0)
if not free and server[1] == ARGV[5] and now - server[2] > horizon then  -- never used: nothing was lost
  free, is_sure = 0, true
end
if not is_sure or ARGV[7] == '1' then  -- what was given before is over after the horizon
  free, since, changed = now + widest, now, now
end
if now - since < DEAD then gateways = most end
if known[1] and (written(heard) ~= known[6] or written(gateways) ~= known[5]) or ARGV[8] == '1' then changed = now end

-- Slots of the last minute were late by this time, in a burst.
if former_rate and (rate ~= former_rate or burst ~= former_burst) and late > 0 and now - late_at < CAREFUL then
  free, late = math.max(free, now) + late, 0
end
if free <= now + 2 * horizon then widest = horizon end

-- Those that are silent may send by themselves.
local step = math.ceil(window / per_window(now - changed < CAREFUL and gateways) * gateways / heard)
if tonumber(ARGV[9]) > 0 then pause = math.max(pause, now + ARGV[9]) end
if tonumber(ARGV[10]) > 0 then slow, slow_step = now + ARGV[10], tonumber(ARGV[11]) end
if slow > now and slow < now + LONGEST_PAUSE then step = math.max(step, slow_step) end

local first = math.max(free, now - math.max(LATE, (burst - 1) * step))
if pause < now + LONGEST_PAUSE then first = math.max(first, pause) end
local granted = 0
if want > 0 and first <= now + horizon then  -- one may be far ahead, so that gateways are served in order
  granted = math.max(1, math.min(want, math.floor((now + AHEAD - first) / step) + 1))
  free = first + granted * step
  if now - first > LATE then
    late, late_at = now - late_at < CAREFUL and math.max(late, now - first) or now - first, now
  end
end
redis.call('HSET', KEYS[1], 'free', written(free), 'epoch', ARGV[5], 'since', written(since),
  'changed', written(changed), 'gateways', written(gateways), 'heard', written(heard),
  'pause', written(pause), 'slow', written(slow), 'slow_step', written(slow_step),
  'version', written(version), 'rate', written(rate), 'burst', written(burst), 'confirmed', written(confirmed),
  'horizon', written(widest), 'late', written(late), 'late_at', written(late_at))
return {now, first, granted, step, horizon, gateways}
