-- A model server that has computed everything beforehand: it answers as many vectors as it is asked for.
local canned = {}
local vectors = {} -- by "dimensions format": each vector as it is written in a reply
local replies = {} -- by dimensions, route, format and count: whole replies, made once

local function read(path)
    local lines = {}
    for line in io.lines(path) do
        lines[#lines + 1] = line
    end
    return lines
end

function canned.load(folder, dimensions)
    for _, format in ipairs({ "json", "base64" }) do
        vectors[dimensions .. format] = read(folder .. "/" .. dimensions .. "." .. format)
    end
end

local function write(dimensions, route, format, count)
    local known = vectors[dimensions .. format]
    local parts = {}
    for i = 1, count do
        local vector = known[(i - 1) % #known + 1]
        if route == "openai" then
            vector = '{"object":"embedding","index":' .. (i - 1) .. ',"embedding":' .. vector .. "}"
        end
        parts[i] = vector
    end
    local list = "[" .. table.concat(parts, ",") .. "]"
    if route == "tei" then
        return list
    end
    local tokens = count * 12
    return '{"object":"list","model":"canned","data":' .. list
        .. ',"usage":{"prompt_tokens":' .. tokens .. ',"total_tokens":' .. tokens .. "}}"
end

-- Every text of the load begins with "Text "; a request without one is the gate's own probe, of one text.
local function count(body)
    local found, at = 0, 1
    while true do
        local _, stop = string.find(body, '"Text ', at, true)
        if not stop then
            return math.max(found, 1)
        end
        found, at = found + 1, stop + 1
    end
end

function canned.answer(route, dimensions)
    ngx.req.read_body()
    local body = ngx.req.get_body_data() or ""
    if string.find(body, "Text slow", 1, true) then
        ngx.sleep(0.1)
    end
    local format = "json"
    if route == "openai" and string.find(body, '"base64"', 1, true) then
        format = "base64"
    end
    local texts = count(body)
    local key = dimensions .. route .. format .. texts
    local reply = replies[key]
    if not reply then
        reply = write(dimensions, route, format, texts)
        replies[key] = reply
    end
    ngx.header["Content-Type"] = "application/json"
    ngx.header["Content-Length"] = #reply
    if route == "tei" then
        ngx.header["x-compute-tokens"] = texts * 12
    end
    ngx.print(reply)
end

local CHAT = '{"id":"c","object":"chat.completion","created":1,"model":"canned","choices":[{"index":0,"message":'
    .. '{"role":"assistant","content":"The gate passes this text on as it is, and looks at nothing but the numbers '
    .. 'of its tokens, which are told at the end."},"finish_reason":"stop"}],"usage":{"prompt_tokens":21,'
    .. '"completion_tokens":24,"total_tokens":45}}'
local CHUNK = 'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"canned","choices":[{"index":0,'
    .. '"delta":{"content":" word"},"finish_reason":null}]}\n\n'
local LAST = 'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"canned","choices":[{"index":0,'
    .. '"delta":{},"finish_reason":"stop"}]}\n\n'
    .. 'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"canned","choices":[],'
    .. '"usage":{"prompt_tokens":21,"completion_tokens":198,"total_tokens":219}}\n\ndata: [DONE]\n\n'

-- A small chat; or 200 events, in flushes of ten, as a busy server's network hands them on.
function canned.chat()
    ngx.req.read_body()
    local body = ngx.req.get_body_data() or ""
    if not string.find(body, '"stream":%s*true') then
        ngx.header["Content-Type"] = "application/json"
        ngx.header["Content-Length"] = #CHAT
        ngx.print(CHAT)
        return
    end
    ngx.header["Content-Type"] = "text/event-stream"
    local ten = string.rep(CHUNK, 10)
    for _ = 1, 19 do
        ngx.print(ten)
        ngx.flush(true)
    end
    ngx.print(string.rep(CHUNK, 8), LAST)
end

return canned
