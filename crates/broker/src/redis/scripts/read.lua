-- Reads what a topic holds.
--
-- KEYS[1]  the topic's hash
-- KEYS[2]  its history's list
-- ARGV[3]  seconds that a topic lives
-- ARGV[4]  seconds that a topic lives that was never published
-- ARGV[5]  1 to create the topic if it is missing, and to renew its time to live
-- ARGV[6]  which part of the history: none, after or newest
-- ARGV[7]  after which offset; or how many entries
--
-- Replies with the true replication id, if it was looked up; the state; the record of the last value, empty if none is
-- kept; the time as seconds and microseconds; then the entries. Without a topic, only with the first of these.
-- The caller sorts out entries that are too old or do not belong together.

local key, create = KEYS[1], ARGV[5] == '1'
local state = settle(key, create)
if not state then
  return { true_id }
end

local offset, bytes = select(2, string.match(state, STATE))
if create then
  -- A Redis that takes no writes at the moment can still be read.
  redis.pcall('EXPIRE', key, offset == '0' and ARGV[4] or ARGV[3])
end

local count = 0
if bytes ~= '' and ARGV[6] == 'after' then
  count = offset - ARGV[7]
elseif bytes ~= '' and ARGV[6] == 'newest' then
  count = tonumber(ARGV[7])
end
local time = call('TIME')
local reply = { true_id or '', state, call('HGET', key, 'v') or '', time[1], time[2] }
if count > 0 then
  for _, entry in ipairs(call('LRANGE', KEYS[2], -count, -1)) do
    reply[#reply + 1] = entry
  end
end
return reply
