-- Take jobs from queues and start them, all at once: there is no moment at which a crash could lose one.
--
-- KEYS: the queues, first served first.
-- ARGV: 1..3 prefixes of keys, of jobs' keys and of queues' keys, 4 worker, 5 jobs wanted, 6 now (Unix),
--       7 now (as RQ writes it), 8 heartbeat interval, 9 lease in seconds, 10 how many jobs the worker holds,
--       11 most bytes of a job's data, 12 most bytes of its other fields, 13.. ids of executions
-- Returns {started, dropped}: {queue number, job id, execution id, the job's hash} each; ids that are no jobs.
--
-- Writes what rq.executions.prepare_execution and Worker.prepare_job_execution write. The queue is noted in
-- `sluice:held:WORKER`: whatever a job's hash says, it belongs to the queue that it was taken from.
local prefix, job_prefix, queue_prefix = ARGV[1], ARGV[2], ARGV[3]
local worker, wanted, now, now_text = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local interval, most_data, most_others = tonumber(ARGV[8]), tonumber(ARGV[11]), tonumber(ARGV[12])
local worker_key, executions_key = prefix .. ':worker:' .. worker, prefix .. ':worker:' .. worker .. ':executions'
local held_key = 'sluice:held:' .. worker
local started, dropped, is_lone = {}, {}, false

local function field(hash, name)
    for i = 1, #hash, 2 do
        if hash[i] == name then return hash[i + 1] end
    end
end

-- What a hash weighs is asked before it is read: of one that is too heavy, only what is light comes along, and `data`
-- becomes empty where it is not. nil: no hash.
local function read(id)
    local key = job_prefix .. id
    local data = redis.pcall('HSTRLEN', key, 'data')
    if type(data) ~= 'number' then return nil end
    if redis.call('HLEN', key) <= 1000 then
        -- An allocator may take a quarter more than it is asked for.
        local others = (redis.call('MEMORY', 'USAGE', key, 'SAMPLES', '0') or 0) - data * 1.25
        if data <= most_data and others <= most_others then return redis.call('HGETALL', key) end
    end
    local hash = {'sluice_is_heavy', '1'}
    for _, name in ipairs({'data', 'created_at', 'enqueued_at', 'sluice_deaths', 'status', 'failure_ttl'}) do
        local limit = name == 'data' and most_data or 64
        local value = redis.call('HSTRLEN', key, name) <= limit and redis.call('HGET', key, name)
        if value or name == 'data' then
            hash[#hash + 1] = name
            hash[#hash + 1] = value or ''
        end
    end
    if redis.call('HEXISTS', key, 'data') == 0 then return {'sluice_is_heavy', '1'} end
    return hash
end

local function start(number, queue, id, hash)
    local execution = ARGV[13 + #started]
    local member, timeout = id .. ':' .. execution, tonumber(field(hash, 'timeout') or '')
    local ttl = 60 + math.floor((timeout and timeout > 0) and math.min(timeout, interval) or interval)
    local execution_key, running_key = prefix .. ':execution:' .. member, prefix .. ':executions:' .. id
    redis.call('HSET', execution_key, 'id', execution, 'job_id', id, 'created_at', ARGV[6], 'last_heartbeat', ARGV[6],
        'worker_name', worker)
    redis.call('EXPIRE', execution_key, ttl)
    redis.call('ZADD', running_key, math.floor(now) + ttl + 60, execution)
    redis.call('EXPIRE', running_key, ttl + 60)
    redis.call('ZADD', prefix .. ':wip:' .. queue, math.floor(now) + ttl, member)
    redis.call('SADD', executions_key, member)
    redis.call('HSET', held_key, member, queue)
    redis.call('HSET', job_prefix .. id, 'status', 'started', 'started_at', now_text, 'last_heartbeat', now_text,
        'worker_name', worker)
    redis.call('PERSIST', job_prefix .. id)
    started[#started + 1] = {number, id, execution, hash}
end

-- An enqueueing that was sent twice over a broken connection leaves its id twice, but only one job to run.
local function is_second_copy(id, hash)
    local status = field(hash, 'status')
    if status == 'started' then return redis.call('ZCARD', prefix .. ':executions:' .. id) > 0 end
    return status == 'finished' or status == 'failed' or status == 'stopped'
end

-- A job that was held when a worker died runs alone, with nothing else in the worker's hands: so it takes no others with
-- it where it is to blame, and none is blamed for its neighbour.
local function take(number, key)
    local id = redis.call('LPOP', key)
    local is_id = #id <= 512 and string.find(id, '^[%w_-]+$')
    local hash = is_id and read(id)
    if not hash or not field(hash, 'data') then
        -- A job that was deleted leaves its id behind; that is no news.
        if not hash or #hash > 0 then dropped[#dropped + 1] = string.sub(id, 1, 512) end
        return
    end
    if is_second_copy(id, hash) then return end
    is_lone = field(hash, 'sluice_deaths') ~= nil
    if is_lone and (#started > 0 or tonumber(ARGV[10]) > 0) then
        redis.call('LPUSH', key, id)
    else
        start(number, string.sub(key, #queue_prefix + 1), id, hash)
    end
end

-- Whether this claim was made before, and its answer lost on the way: then it is given again.
local function is_repetition()
    local asked, numbers = {}, {}
    for at = 13, #ARGV do asked[ARGV[at]] = true end
    for number, key in ipairs(KEYS) do numbers[string.sub(key, #queue_prefix + 1)] = number end
    local held = redis.call('HGETALL', held_key)
    for at = 1, #held, 2 do
        local id, execution = string.match(held[at], '^(.*):([^:]*)$')
        if asked[execution] then
            local hash = read(id)
            if hash and field(hash, 'data') then started[#started + 1] = {numbers[held[at + 1]], id, execution, hash} end
        end
    end
    return #started > 0
end

if is_repetition() or redis.call('EXISTS', prefix .. ':suspended') == 1 then return {started, dropped} end
local tries = wanted + 1000
for number, key in ipairs(KEYS) do
    local waiting = redis.call('LLEN', key)
    while waiting > 0 and #started < wanted and not is_lone and tries > 0 do
        waiting, tries = waiting - 1, tries - 1
        take(number, key)
    end
end
if #started > 0 then
    local time = redis.call('TIME')
    redis.call('ZADD', 'sluice:leases', tonumber(time[1]) + tonumber(time[2]) / 1e6 + tonumber(ARGV[9]), worker)
    redis.call('EXPIRE', executions_key, interval + 60)
    redis.call('HSET', worker_key, 'state', 'busy', 'last_heartbeat', now_text)
    redis.call('EXPIRE', worker_key, interval + 60)
end
return {started, dropped}
