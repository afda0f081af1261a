-- Deliveries of verdicts to endpoints: what waits, until when, and what became of it. Time is Redis's own clock.
--
--   sluice:webhooks:delivery:<id>       hash: endpoint, url, verdict_id, body, attempts, since (Unix time)
--   sluice:webhooks:due:<endpoint>      sorted set: ids by the Unix time of the next attempt
--   sluice:webhooks:endpoints:<standing>  sorted set: endpoints by the Unix time at which something is to do; a
--                                       standing is well, new or failing, and an endpoint has one
--   sluice:webhooks:answering           sorted set: endpoints by when they last took a verdict, the latest 10,000
--   sluice:webhooks:endpoint:<e>        hash: failures (in a row), failing_since, says, not_before
--   sluice:webhooks:waiting             number of deliveries
--   sluice:webhooks:off                 hash: endpoints that are switched off, as JSON, 10,000 at most
--   sluice:webhooks:dead                stream: deliveries that were given up
--
-- ARGV: 1 operation, then its arguments. Every operation may be repeated: the connection may break before the answer.
local base = 'sluice:webhooks:'
local off_key, dead_key = base .. 'off', base .. 'dead'
local answering_key, waiting_key = base .. 'answering', base .. 'waiting'
local standings = {'well', 'new', 'failing'}
local remembered = 10000
-- An endpoint that failed so often in a row is left alone, for twice as long each time, a minute at most: one bad
-- verdict must not hold the others up, and an endpoint that is down must not be tried with each verdict that waits.
local failures_before_pause, longest_pause = 3, 60

local function now()
    local time = redis.call('TIME')
    return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

-- Say when something is to do for an endpoint, and how it stands; forget one for which nothing waits.
local function refresh(endpoint)
    for _, standing in ipairs(standings) do redis.call('ZREM', base .. 'endpoints:' .. standing, endpoint) end
    local first = redis.call('ZRANGE', base .. 'due:' .. endpoint, 0, 0, 'WITHSCORES')
    if not first[1] then
        redis.call('DEL', base .. 'endpoint:' .. endpoint)
        return
    end
    local found = redis.call('HMGET', base .. 'endpoint:' .. endpoint, 'failures', 'not_before')
    local at, standing = tonumber(first[2]), 'new'
    if redis.call('HEXISTS', off_key, endpoint) == 1 then
        standing = 'failing'
    else
        at = math.max(at, tonumber(found[2] or 0))
        if found[1] then
            standing = 'failing'
        elseif redis.call('ZSCORE', answering_key, endpoint) then
            standing = 'well'
        end
    end
    redis.call('ZADD', base .. 'endpoints:' .. standing, at, endpoint)
end

local function put(id, endpoint, url, verdict_id, body)
    local time = now()
    if redis.call('EXISTS', base .. 'delivery:' .. id) == 0 then redis.call('INCR', waiting_key) end
    redis.call('HSET', base .. 'delivery:' .. id, 'endpoint', endpoint, 'url', url, 'verdict_id', verdict_id,
        'body', body, 'attempts', 0, 'since', time)
    redis.call('ZADD', base .. 'due:' .. endpoint, time, id)
end

local function forget(id, endpoint)
    if redis.call('DEL', base .. 'delivery:' .. id) == 1 then redis.call('DECR', waiting_key) end
    redis.call('ZREM', base .. 'due:' .. endpoint, id)
end

local function bury(maxlen, id, endpoint, url, verdict_id, body, attempts, reason, says)
    redis.call('XADD', dead_key, 'MAXLEN', '~', maxlen, '*', 'delivery', id, 'endpoint', endpoint, 'url', url,
        'verdict_id', verdict_id, 'verdict', body, 'attempts', attempts, 'reason', reason, 'says', says)
end

-- Whether one more may wait: so many for each endpoint, and twice as many in all for those that do not answer.
local function has_room(endpoint, most)
    if redis.call('ZCARD', base .. 'due:' .. endpoint) >= most then return false end
    return tonumber(redis.call('GET', waiting_key) or 0) < 2 * most
        or redis.call('ZSCORE', base .. 'endpoints:well', endpoint) or redis.call('ZSCORE', answering_key, endpoint)
end

local operations = {}

-- Take entries over from the stream of verdicts: stream, group, how many may wait, then entry, endpoint, url, verdict
-- id and body of each. Only an entry that is still pending is taken, so that two who read the same one make one
-- delivery of it. Returns how many are to be posted, and how many became dead letters at once.
function operations.accept()
    local most, touched, accepted, buried = tonumber(ARGV[4]), {}, 0, 0
    for at = 5, #ARGV, 5 do
        local id, endpoint, url, verdict_id, body = unpack(ARGV, at, at + 4)
        if redis.call('XACK', ARGV[2], ARGV[3], id) == 1 and url ~= '' then
            if has_room(endpoint, most) then
                put(id, endpoint, url, verdict_id, body)
                touched[endpoint] = true
                accepted = accepted + 1
            else
                bury(most, id, endpoint, url, verdict_id, body, 0, 'outbox_full', 'too many wait')
                buried = buried + 1
            end
        end
    end
    for endpoint in pairs(touched) do refresh(endpoint) end
    return {accepted, buried}
end

-- Which endpoints of each standing have something to do now, at most so many of each, and how long until the next
-- other one has (-1: never).
function operations.due()
    local time, found, next_at = now(), {}, nil
    for at, standing in ipairs(standings) do
        local key = base .. 'endpoints:' .. standing
        found[at] = redis.call('ZRANGEBYSCORE', key, '-inf', time, 'LIMIT', 0, ARGV[2])
        local later = redis.call('ZRANGEBYSCORE', key, '(' .. time, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
        if later and (not next_at or tonumber(later) < next_at) then next_at = tonumber(later) end
    end
    found[4] = next_at and tostring(next_at - time) or '-1'
    return found
end

-- Lease deliveries: seconds, then endpoint and how many of each. Whoever has one and dies is silent, and the lease ends.
function operations.take()
    local time, taken = now(), {}
    for at = 3, #ARGV, 2 do
        local endpoint, due_key = ARGV[at], base .. 'due:' .. ARGV[at]
        local not_before = tonumber(redis.call('HGET', base .. 'endpoint:' .. endpoint, 'not_before') or 0)
        local is_off, ids = redis.call('HEXISTS', off_key, endpoint), {}
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

-- It arrived: id, endpoint. A wait that the endpoint asked for meanwhile stays.
function operations.delivered()
    local id, endpoint = ARGV[2], ARGV[3]
    local time, key = now(), base .. 'endpoint:' .. endpoint
    forget(id, endpoint)
    redis.call('ZADD', answering_key, time, endpoint)
    if redis.call('ZCARD', answering_key) > remembered then redis.call('ZREMRANGEBYRANK', answering_key, 0, 0) end
    redis.call('HDEL', key, 'failures', 'failing_since', 'says')
    if tonumber(redis.call('HGET', key, 'not_before') or 0) <= time then redis.call('DEL', key) end
    refresh(endpoint)
    return 1
end

-- It did not: id, endpoint, attempts so far, seconds to wait, seconds for which the whole endpoint is left alone,
-- seconds of its first pause, why.
function operations.retry()
    local id, endpoint, attempts, wait, pause, first_pause, says = unpack(ARGV, 2, 8)
    local key, time = base .. 'endpoint:' .. endpoint, now()
    if redis.call('EXISTS', base .. 'delivery:' .. id) == 0 then return 0 end
    redis.call('HSET', base .. 'delivery:' .. id, 'attempts', attempts)
    redis.call('ZADD', base .. 'due:' .. endpoint, time + tonumber(wait), id)
    redis.call('HSETNX', key, 'failing_since', time)
    redis.call('HSET', key, 'says', says)
    local more = redis.call('HINCRBY', key, 'failures', 1) - failures_before_pause
    local seconds = tonumber(pause)
    if more >= 0 then
        seconds = math.max(seconds, math.min(longest_pause, tonumber(first_pause) * 2 ^ math.min(more, 30)))
    end
    local not_before = tonumber(redis.call('HGET', key, 'not_before') or 0)
    if seconds > 0 then redis.call('HSET', key, 'not_before', math.max(not_before, time + seconds)) end
    refresh(endpoint)
    return 1
end

-- It never will: id, endpoint, attempts, reason, why, length of the stream, what to keep of an endpoint to switch off.
function operations.dead()
    local id, endpoint, attempts, reason, says, maxlen, off = unpack(ARGV, 2, 8)
    local found = redis.call('HMGET', base .. 'delivery:' .. id, 'url', 'verdict_id', 'body')
    if off ~= '' then
        -- Whoever answers 410 at a million URLs costs no more than this: one that is forgotten is asked once more.
        if redis.call('HLEN', off_key) >= remembered then
            redis.call('HDEL', off_key, redis.call('HRANDFIELD', off_key))
        end
        redis.call('HSETNX', off_key, endpoint, off)
    end
    if not found[1] then
        refresh(endpoint)
        return 0
    end
    bury(maxlen, id, endpoint, found[1], found[2], found[3], attempts, reason, says)
    forget(id, endpoint)
    refresh(endpoint)
    return 1
end

-- Post to an endpoint again. 0: it is not switched off.
function operations.switch_on()
    local was_off = redis.call('HDEL', off_key, ARGV[2])
    if was_off == 1 then refresh(ARGV[2]) end
    return was_off
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
    refresh(fields.endpoint)
    return 1
end

return operations[ARGV[1]]()
