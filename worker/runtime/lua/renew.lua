-- Say that a worker and what it holds are alive. Nothing is made that was not there: an end may have come first.
--
-- ARGV: 1..3 prefixes of keys, of jobs' keys and of queues' keys, 4 worker, 5 lease in seconds, 6 now (Unix),
--       7 now (as RQ writes it), 8 heartbeat interval, 9.. job id, execution id and queue of each execution, or none
-- Returns 1 where the lease had held until now, else 0.
local prefix, job_prefix, worker = ARGV[1], ARGV[2], ARGV[4]
local time = redis.call('TIME')
local now_here = tonumber(time[1]) + tonumber(time[2]) / 1e6
local lease = redis.call('ZSCORE', 'sluice:leases', worker)
redis.call('ZADD', 'sluice:leases', now_here + tonumber(ARGV[5]), worker)
local now, ttl = math.floor(tonumber(ARGV[6])), tonumber(ARGV[8]) + 60
redis.call('EXPIRE', prefix .. ':worker:' .. worker .. ':executions', ttl)
for at = 9, #ARGV, 3 do
    local id, execution, queue = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    local member = id .. ':' .. execution
    local key = prefix .. ':execution:' .. member
    if redis.call('EXISTS', key) == 1 then
        redis.call('HSET', key, 'last_heartbeat', ARGV[6])
        redis.call('EXPIRE', key, ttl)
        redis.call('ZADD', prefix .. ':wip:' .. queue, 'XX', now + ttl, member)
        redis.call('ZADD', prefix .. ':executions:' .. id, 'XX', now + ttl + 60, execution)
        redis.call('EXPIRE', prefix .. ':executions:' .. id, ttl + 60)
        if redis.call('TYPE', job_prefix .. id).ok == 'hash' then
            redis.call('HSET', job_prefix .. id, 'last_heartbeat', ARGV[7])
        end
    end
end
return lease and tonumber(lease) > now_here and 1 or 0
