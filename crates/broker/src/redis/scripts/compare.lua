-- Sends the positions of topics to a node's channel, creates what is missing, and renews times to live.
-- The node hears it on the connection on which it hears publications, and in order with them: whatever was published up
-- to these positions has reached it by then, or never will.
--
-- KEYS     the topics' hashes
-- ARGV[3]  seconds that a topic lives
-- ARGV[4]  seconds that a topic lives that was never published
-- ARGV[5]  the node's channel
-- ARGV[6]  the number of the comparison
-- then the topics' names, in the order of KEYS
--
-- Replies with the true replication id, if it was looked up.

local function position(key)
  local epoch, offset = string.match(settle(key, true), STATE)
  -- A Redis that takes no writes at the moment can still be compared with. To look first spares replicas a command.
  local lives = tonumber(offset == '0' and ARGV[4] or ARGV[3])
  if call('TTL', key) < lives / 2 then
    redis.pcall('EXPIRE', key, lives)
  end
  return epoch .. ' ' .. offset
end

local lines = { 'C' .. ARGV[6] }
for i, key in ipairs(KEYS) do
  local done, line = pcall(position, key)
  if done then
    lines[#lines + 1] = ARGV[6 + i] .. ' ' .. line
  else
    -- A topic that cannot be read or created must not keep the others from being compared. But a server that became
    -- a replica is the wrong one to ask.
    local problem = type(line) == 'table' and line.err or tostring(line)
    if string.find(problem, 'READONLY', 1, true) then
      return redis.error_reply(problem)
    end
  end
end
call('PUBLISH', ARGV[5], table.concat(lines, '\n'))
return true_id or ''
