-- Deliveries of verdicts to endpoints: what waits, until when, and what became of it. Time is Redis's own clock.
--
--   sluice:webhooks:delivery:<id>   hash: endpoint, url, verdict_id, body, attempts, since (Unix time)
--   sluice:webhooks:due:<endpoint>  sorted set: ids by the Unix time of the next attempt
--   sluice:webhooks:endpoints       sorted set: endpoints by the Unix time at which something is to do
--   sluice:webhooks:endpoint:<e>    hash of an endpoint that fails: not_before, failing_since, says
--   sluice:webhooks:off             hash: endpoints that are switched off, as JSON
--   sluice:webhooks:dead            stream: deliveries that were given up
--
-- ARGV: 1 operation, then its arguments. Every operation may be repeated: the connection may break before the answer.
local base = 'sluice:webhooks:'
local endpoints_key, off_key, dead_key = base .. 'endpoints', base .. 'off', base .. 'dead'

local function now()
    local time = redis.call('TIME')
    return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

-- Say when something is to do for an endpoint; forget one for which nothing waits.
local function refresh(endpoint)
    local first = redis.call('ZRANGE', base .. 'due:' .. endpoint, 0, 0, 'WITHSCORES')
    if not first[1] then
        redis.call('ZREM', endpoints_key, endpoint)
        redis.call('DEL', base .. 'endpoint:' .. endpoint)
        return
    end
    local not_before = redis.call('HGET', base .. 'endpoint:' .. endpoint, 'not_before')
    redis.call('ZADD', endpoints_key, math.max(tonumber(first[2]), tonumber(not_before or 0)), endpoint)
end

local function put(id, endpoint, url, verdict_id, body)
    local time = now()
    redis.call('HSET', base .. 'delivery:' .. id, 'endpoint', endpoint, 'url', url, 'verdict_id', verdict_id,
        'body', body, 'attempts', 0, 'since', time)
    redis.call('ZADD', base .. 'due:' .. endpoint, time, id)
    refresh(endpoint)
end

local function forget(id, endpoint)
    redis.call('DEL', base .. 'delivery:' .. id)
    redis.call('ZREM', base .. 'due:' .. endpoint, id)
end

local operations = {}

-- Take entries over from the stream of verdicts: stream, group, then entry, endpoint, url, verdict id and body of each.
-- Only an entry that is still pending is taken, so that two who read the same one make one delivery of it.
function operations.accept()
    local accepted = 0
    for at = 4, #ARGV, 5 do
        local id, endpoint, url, verdict_id, body = unpack(ARGV, at, at + 4)
        if redis.call('XACK', ARGV[2], ARGV[3], id) == 1 and url ~= '' then
            put(id, endpoint, url, verdict_id, body)
            accepted = accepted + 1
        end
    end
    return accepted
end

-- Which endpoints have something to do now, at most so many, and how long until the next other one has (-1: never).
function operations.due()
    local time = now()
    local names = redis.call('ZRANGEBYSCORE', endpoints_key, '-inf', time, 'LIMIT', 0, ARGV[2])
    local later = redis.call('ZRANGEBYSCORE', endpoints_key, '(' .. time, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    return {names, later[2] and tostring(tonumber(later[2]) - time) or '-1'}
end

-- Lease deliveries: seconds, then endpoint and how many of each. Whoever has one and dies is silent, and the lease ends.
function operations.take()
    local time, taken = now(), {}
    for at = 3, #ARGV, 2 do
        local endpoint, due_key = ARGV[at], base .. 'due:' .. ARGV[at]
        local not_before = tonumber(redis.call('HGET', base .. 'endpoint:' .. endpoint, 'not_before') or 0)
        local is_off = redis.call('HEXISTS', off_key, endpoint)
        local ids = {}
        if is_off == 1 or not_before <= time then
            ids = redis.call('ZRANGEBYSCORE', due_key, '-inf', time, 'LIMIT', 0, ARGV[at + 1])
        end
        for _, id in ipairs(ids) do
            local found = redis.call('HMGET', base .. 'delivery:' .. id, 'url', 'verdict_id', 'body', 'attempts', 'since')
            if found[1] then
                redis.call('ZADD', due_key, time + tonumber(ARGV[2]), id)
                taken[#taken + 1] = {id, endpoint, found[1], found[2], found[3], tonumber(found[4]),
                    math.floor(time - tonumber(found[5])), is_off}
            else
                redis.call('ZREM', due_key, id)
            end
        end
        refresh(endpoint)
    end
    return taken
end

-- It arrived: id, endpoint.
function operations.delivered()
    forget(ARGV[2], ARGV[3])
    redis.call('DEL', base .. 'endpoint:' .. ARGV[3])
    refresh(ARGV[3])
    return 1
end

-- It did not: id, endpoint, attempts so far, seconds to wait, seconds for which the whole endpoint is left alone, why.
function operations.retry()
    local id, endpoint, attempts, wait, pause, says = unpack(ARGV, 2, 7)
    local key, time = base .. 'endpoint:' .. endpoint, now()
    if redis.call('EXISTS', base .. 'delivery:' .. id) == 0 then return 0 end
    redis.call('HSET', base .. 'delivery:' .. id, 'attempts', attempts)
    redis.call('ZADD', base .. 'due:' .. endpoint, time + tonumber(wait), id)
    redis.call('HSETNX', key, 'failing_since', time)
    redis.call('HSET', key, 'says', says)
    if tonumber(pause) > 0 then redis.call('HSET', key, 'not_before', time + tonumber(pause)) end
    refresh(endpoint)
    return 1
end

-- It never will: id, endpoint, attempts, reason, why, length of the stream, what to keep of an endpoint to switch off.
function operations.dead()
    local id, endpoint, attempts, reason, says, maxlen, off = unpack(ARGV, 2, 8)
    local found = redis.call('HMGET', base .. 'delivery:' .. id, 'url', 'verdict_id', 'body')
    if off ~= '' then redis.call('HSETNX', off_key, endpoint, off) end
    if not found[1] then return 0 end
    redis.call('XADD', dead_key, 'MAXLEN', '~', maxlen, '*', 'delivery', id, 'endpoint', endpoint, 'url', found[1],
        'verdict_id', found[2], 'verdict', found[3], 'attempts', attempts, 'reason', reason, 'says', says)
    forget(id, endpoint)
    refresh(endpoint)
    return 1
end

-- Put a dead letter back: its entry. 0: there is none, or its endpoint is switched off.
function operations.replay()
    local entry = redis.call('XRANGE', dead_key, ARGV[2], ARGV[2])[1]
    if not entry then return 0 end
    local fields = {}
    for at = 1, #entry[2], 2 do fields[entry[2][at]] = entry[2][at + 1] end
    if redis.call('HEXISTS', off_key, fields.endpoint) == 1 then return 0 end
    put(fields.delivery, fields.endpoint, fields.url, fields.verdict_id, fields.verdict)
    redis.call('XDEL', dead_key, ARGV[2])
    return 1
end

return operations[ARGV[1]]()
