-- Say that a worker and what it holds are alive. Nothing is made that was not there: an end may have come first.
--
-- ARGV: 1 key prefix, 2 worker, 3 lease in seconds, 4 now (Unix), 5 now (as RQ writes it), 6 heartbeat interval,
--       7.. job id, execution id and queue of each execution (none: the lease alone)
-- Returns 1 where the lease had held until now, else 0.
local prefix, worker = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now_here = tonumber(time[1]) + tonumber(time[2]) / 1e6
local lease = redis.call('ZSCORE', 'sluice:leases', worker)
redis.call('ZADD', 'sluice:leases', now_here + tonumber(ARGV[3]), worker)
local now, ttl = math.floor(tonumber(ARGV[4])), tonumber(ARGV[6]) + 60
redis.call('EXPIRE', prefix .. ':worker:' .. worker .. ':executions', ttl)
for at = 7, #ARGV, 3 do
    local id, execution, queue = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    local member = id .. ':' .. execution
    local key = prefix .. ':execution:' .. member
    if redis.call('EXISTS', key) == 1 then
        redis.call('HSET', key, 'last_heartbeat', ARGV[4])
        redis.call('EXPIRE', key, ttl)
        redis.call('ZADD', prefix .. ':wip:' .. queue, 'XX', now + ttl, member)
        redis.call('ZADD', prefix .. ':executions:' .. id, 'XX', now + ttl + 60, execution)
        redis.call('EXPIRE', prefix .. ':executions:' .. id, ttl + 60)
        if redis.call('EXISTS', prefix .. ':job:' .. id) == 1 then
            redis.call('HSET', prefix .. ':job:' .. id, 'last_heartbeat', ARGV[5])
        end
    end
end
return lease and tonumber(lease) > now_here and 1 or 0
