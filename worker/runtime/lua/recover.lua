-- Put the jobs of a worker back to the front of their queues: of a dead one, or of one that gives its own back.
--
-- ARGV: 1..3 prefixes of keys, of jobs' keys and of queues' keys, 4 worker, 5 what each job's count of deaths grows by
--       (0: the worker gives them back itself), 6.. `job:execution` of those that are put back, or none for all
-- Returns the ids of the jobs; nothing where the worker's lease holds.
local prefix, job_prefix, queue_prefix = ARGV[1], ARGV[2], ARGV[3]
local worker, deaths = ARGV[4], tonumber(ARGV[5])
local time = redis.call('TIME')
local lease = redis.call('ZSCORE', 'sluice:leases', worker)
if deaths > 0 and lease and tonumber(lease) > tonumber(time[1]) + tonumber(time[2]) / 1e6 then return false end
local worker_key, held_key, back = prefix .. ':worker:' .. worker, 'sluice:held:' .. worker, {}
local held = redis.call('HGETALL', held_key)
local wanted = {}
for at = 6, #ARGV do wanted[ARGV[at]] = true end

local function put_back(member, queue)
    local id, execution = string.match(member, '^(.*):([^:]*)$')
    local job_key = job_prefix .. id
    local was_held = redis.call('ZREM', prefix .. ':wip:' .. queue, member) == 1
    local job = redis.pcall('HMGET', job_key, 'status', 'worker_name')
    -- Somebody wrote over the job: there is nothing left to run, and the others must come back all the same.
    if job.err then job = {} end
    redis.call('DEL', prefix .. ':execution:' .. member)
    redis.call('ZREM', prefix .. ':executions:' .. id, execution)
    -- RQ's clean-up may have given the job up, without a verdict; then it has neither been retried nor ended.
    if (was_held and job[1] == 'started') or (not was_held and job[1] == 'failed' and job[2] == worker) then
        redis.call('ZREM', prefix .. ':failed:' .. queue, id)
        redis.call('PERSIST', job_key)
        redis.call('HSET', job_key, 'status', 'queued')
        if deaths > 0 and type(redis.pcall('HINCRBY', job_key, 'sluice_deaths', deaths)) ~= 'number' then
            redis.call('HSET', job_key, 'sluice_deaths', deaths)
        end
        redis.call('SADD', prefix .. ':queues', queue_prefix .. queue)
        redis.call('LPUSH', queue_prefix .. queue, id)
        back[#back + 1] = id
    end
end

for at = 1, #held, 2 do
    if #ARGV < 6 or wanted[held[at]] then
        put_back(held[at], held[at + 1])
        redis.call('HDEL', held_key, held[at])
        redis.pcall('SREM', worker_key .. ':executions', held[at])
    end
end
if #ARGV < 6 then redis.call('DEL', held_key, worker_key .. ':executions') end
if deaths > 0 then
    redis.call('ZREM', 'sluice:leases', worker)
    redis.call('DEL', worker_key)
    redis.call('SREM', prefix .. ':workers', worker_key)
end
return back
