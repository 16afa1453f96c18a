-- wrk's script: one POST again and again, its body from a file; the figures as one line of JSON.
-- Where the body says @@@@@@@@@, each request has a number of its own, so that no text is ever asked for twice.
local parts, number

function init(args)
    local file = assert(io.open(args[1], "rb"))
    wrk.body = file:read("*a")
    file:close()
    number = tonumber(args[2])
    parts = {}
    for part in (wrk.format("POST") .. "@@@@@@@@@"):gmatch("(.-)@@@@@@@@@") do
        parts[#parts + 1] = part
    end
end

function request()
    number = number + 1
    return table.concat(parts, string.format("%09d", number))
end

function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '{"requests":%d,"bytes":%d,"seconds":%.6f,"refused":%d,"broken":%d,"p50_ms":%.3f,"p99_ms":%.3f}\n',
        summary.requests, summary.bytes, summary.duration / 1e6, errors.status,
        errors.connect + errors.read + errors.write + errors.timeout,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
