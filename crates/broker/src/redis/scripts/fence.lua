-- The beginning of every script: where a topic stands, and whether its offsets can be trusted.
--
-- A topic is a hash. Its state is the text "epoch offset", followed by " bytes" if it keeps a history of so many bytes.
-- The field that holds the state is named after the replication id of the Redis that wrote it. That id changes
-- whenever offsets may have been rewound (restart, promotion of a replica). Then nothing is found under the new id,
-- and the topic gets a new epoch; its offset, value and history go on.
--
-- ARGV[1]  the replication id as the caller knows it, or nothing
-- ARGV[2]  the epoch of topics that need a new one

local call = redis.call
local caller = ARGV[1]
local true_id -- once it was asked for

local STATE = '^(%w+) (%d+) ?(%d*)$'

-- For a topic without a state under the caller's id: the id to keep it under, its state if there is any, and the fields
-- that go when this state is written. The caller may be the one who is behind, so the true id decides. What is no state,
-- written by whomever, counts as none. Changes nothing.
local function find(key)
  if not true_id then
    true_id = string.match(call('INFO', 'replication'), 'master_replid:(%x+)')
  end
  local state = call('HGET', key, true_id)
  if state and string.find(state, STATE) then
    return true_id, state
  end
  local others, last = {}, -1
  for _, field in ipairs(call('HKEYS', key)) do
    if field ~= 'v' and field ~= true_id then
      others[#others + 1] = field
      local found = call('HGET', key, field)
      local offset = tonumber((select(2, string.match(found, STATE))))
      if offset and offset > last then
        state, last = string.gsub(found, '^%w+', ARGV[2]), offset
      end
    end
  end
  return true_id, last >= 0 and state or nil, others[1] and others
end
