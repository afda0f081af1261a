-- End jobs, each by itself and each at most once: only a job that this worker still holds is written.
--
-- ARGV: 1..3 prefixes of keys, of jobs' keys and of queues' keys, 4 worker, 5 seconds worked, 6 number of jobs; then for
-- each job the number of its arguments, and
--   S job execution queue result_ttl return_value began ended ended_text pushes…   it succeeded, and nothing is special
--   C job execution queue commands…                                                whatever else RQ would have written
--   B job execution queue failure_ttl commands…                                    RQ's own way failed: only what must be
-- where `pushes` and `commands` are, again and again, a number of arguments and these. A push is an XADD.
-- Returns for each: 1 written; 2 written before, this is a repetition; 0 no longer ours; -1 it has dependents, and -2 Redis
-- refused a command (both: not written, or not all of it).
local prefix, job_prefix, worker = ARGV[1], ARGV[2], ARGV[4]
local worker_key, executions_key = prefix .. ':worker:' .. worker, prefix .. ':worker:' .. worker .. ':executions'
local held_key = 'sluice:held:' .. worker
local succeeded, failed = 0, 0

local function is_repetition(id, execution)
    local last = redis.call('XREVRANGE', prefix .. ':results:' .. id, '+', '-', 'COUNT', 1)[1]
    for i = 1, last and #last[2] or 0, 2 do
        if last[2][i] == 'execution_id' and last[2][i + 1] == execution then return true end
    end
    return false
end

-- Held means: not recovered by another worker. A job may have been cancelled meanwhile, or given up by RQ's clean-up.
local function state_of(id, execution, queue)
    if not redis.call('ZSCORE', prefix .. ':wip:' .. queue, id .. ':' .. execution) then
        local job = redis.pcall('HMGET', job_prefix .. id, 'status', 'worker_name')
        local is_open = job[2] == worker and (job[1] == 'started' or job[1] == 'canceled' or job[1] == 'failed')
        if not is_open or redis.call('HEXISTS', held_key, id .. ':' .. execution) == 0 then
            return is_repetition(id, execution) and 2 or 0
        end
        redis.call('ZREM', prefix .. ':failed:' .. queue, id)
    end
    return redis.call('EXISTS', job_prefix .. id .. ':dependents') == 1 and -1 or 1
end

local function forget(id, execution, queue)
    local member = id .. ':' .. execution
    redis.call('DEL', prefix .. ':execution:' .. member)
    redis.call('ZREM', prefix .. ':wip:' .. queue, member)
    redis.call('ZREM', prefix .. ':executions:' .. id, execution)
    redis.call('SREM', executions_key, member)
    redis.call('HDEL', held_key, member)
end

local function replay(at, last)
    while at <= last do
        local count = tonumber(ARGV[at])
        redis.call(unpack(ARGV, at + 1, at + count))
        at = at + count + 1
    end
end

local function succeed(id, queue, execution, ttl, value, began, ended, ended_text)
    local job, results = job_prefix .. id, prefix .. ':results:' .. id
    redis.call('HSET', job, 'status', 'finished', 'ended_at', ended_text, 'last_heartbeat', ended_text)
    redis.call('HDEL', job, 'sluice_deaths')
    if value == '' then
        redis.call('XADD', results, 'MAXLEN', '~', '10', '*', 'type', '1', 'worker_name', worker,
            'execution_id', execution, 'execution_started_at', began, 'execution_ended_at', ended)
    else
        redis.call('XADD', results, 'MAXLEN', '~', '10', '*', 'type', '1', 'worker_name', worker, 'return_value', value,
            'execution_id', execution, 'execution_started_at', began, 'execution_ended_at', ended)
    end
    if ttl < 0 then
        redis.call('PERSIST', results)
        redis.call('ZADD', prefix .. ':finished:' .. queue, '+inf', id)
    else
        redis.call('EXPIRE', results, ttl)
        redis.call('ZADD', prefix .. ':finished:' .. queue, math.floor(tonumber(ended)) + ttl, id)
        redis.call('EXPIRE', job, ttl)
        redis.call('EXPIRE', job_prefix .. ':' .. id .. ':dependencies', ttl)
    end
end

-- Somebody has written over a key of the job; whatever still can be written is.
local function bury(id, queue, ttl)
    redis.pcall('HSET', job_prefix .. id, 'status', 'failed')
    redis.pcall('HDEL', job_prefix .. id, 'sluice_deaths')
    redis.pcall('ZADD', prefix .. ':failed:' .. queue, math.floor(tonumber(redis.call('TIME')[1])) + ttl, id)
end

local function write(at, last)
    local kind, id, execution, queue = unpack(ARGV, at, at + 3)
    local state = state_of(id, execution, queue)
    if kind == 'B' and state == -1 then state = 1 end
    if state == 0 then forget(id, execution, queue) end
    if state ~= 1 then return state end
    if kind == 'S' then
        local ttl, value, began, ended, ended_text = unpack(ARGV, at + 4, at + 8)
        succeed(id, queue, execution, tonumber(ttl), value, began, ended, ended_text)
        replay(at + 9, last)
        succeeded = succeeded + 1
    elseif kind == 'B' then
        replay(at + 5, last)
        bury(id, queue, tonumber(ARGV[at + 4]))
        failed = failed + 1
    else
        replay(at + 4, last)
        failed = failed + 1
    end
    forget(id, execution, queue)
    return 1
end

local at, ends = 7, {}
for number = 1, tonumber(ARGV[6]) do
    local last = at + tonumber(ARGV[at])
    local ok, state = pcall(write, at + 1, last)
    ends[number] = ok and state or -2
    at = last + 1
end
if succeeded > 0 then redis.call('HINCRBY', worker_key, 'successful_job_count', succeeded) end
if failed > 0 then redis.call('HINCRBY', worker_key, 'failed_job_count', failed) end
if succeeded + failed > 0 then redis.call('HINCRBYFLOAT', worker_key, 'total_working_time', ARGV[5]) end
return ends
