-- Reading and comparing meet a topic in the same way.

-- The state of a topic, created if it is missing and `create` says so. A state under another id is carried over.
local function settle(key, create)
  local state = call('HGET', key, caller)
  if state and string.find(state, STATE) then
    return state
  end
  local id, replaced
  id, state, replaced = find(key)
  if not state and not create then
    return
  end
  if replaced or not state then
    state = state or ARGV[2] .. ' 0'
    call('HSET', key, id, state)
  end
  if replaced then
    call('HDEL', key, unpack(replaced))
  end
  return state
end
