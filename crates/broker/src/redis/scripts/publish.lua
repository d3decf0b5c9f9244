-- Publishes a chunk of items. The items of a topic come as one run; a run that fails leaves the others alone.
--
-- ARGV[3]  seconds that a topic lives
-- ARGV[4]  seconds that an idempotency key lives
-- then for each run
--   KEYS   the topic's hash; the history's list, if it is kept; an answer for each item, if the items have keys
--   ARGV   the channel to publish on
--          five digits: keep the value? renew times to live? keep history? do items have keys? how many items;
--          digits go on beyond 9 as ASCII does
--          with history: entries at most, bytes at most, milliseconds at most, seconds that the list lives
--          for each item its record and, if items have keys, a fingerprint of its payload
--
-- Replies with lines: the true replication id, if it was looked up, then for each run
--   -<error>            it was refused, and nothing of it was done
--   ?<error>            it failed half-way
--   <epoch> <offset>    it was published, its first item at this offset
-- or, if its items have keys, for each of them
--   <epoch> <offset>    it was published at this offset
--   =<epoch> <offset>   it is a duplicate of what was published at this offset
--   !                   its key was used with another payload

local DIGIT = string.byte('0')

local reply = { '' }
local next_key, next_arg = 1, 5 -- where the next run begins
local answered -- lines of the reply before those of the current run
local written -- has the current run changed anything yet?
local claimed -- answers of the current run that hold only if it comes to its state
local time -- "seconds microseconds", once it was asked for

-- Lets go of entries that are too old. They are invisible already: this only frees memory, so some at a time will do.
-- Returns the bytes of the rest.
local function drop_aged(list, bytes, age_max)
  local seconds, micros = string.match(time, '(%d+) (%d+)')
  for _ = 1, 100 do
    local entry = call('LINDEX', list, 0)
    if not entry then
      break
    end
    local at_seconds, at_micros = string.match(entry, '^%d+ (%d+) (%d+)')
    -- An entry that cannot be read is of no use to anyone either.
    if at_seconds and (seconds - at_seconds) * 1000 + (micros - at_micros) / 1000 < age_max then
      break
    end
    bytes = bytes - #call('LPOP', list)
  end
  return bytes
end

-- Appends items[first] to items[last] to a history of `bytes` bytes; without `bytes`, what the list holds is not this
-- topic's history any more. The first item's offset comes as a number and as text. Returns the new bytes.
local function remember(list, items, first, last, offset, offset_text, bytes, renew, limits)
  if not time then
    local parts = call('TIME')
    time = parts[1] .. ' ' .. parts[2]
  end
  local stamp = ' ' .. time .. ' ' .. ARGV[limits + 2] .. '\n'
  local entry = offset_text .. stamp .. items[first]
  local entries, added = { entry }, #entry
  for i = first + 1, last do
    entry = string.format('%.0f', offset + i - first) .. stamp .. items[i]
    entries[#entries + 1] = entry
    added = added + #entry
  end
  local length = call('RPUSH', list, unpack(entries))
  written = true
  if bytes == '' and length > #entries then
    call('LTRIM', list, -#entries, -1)
    length = #entries
  end
  if length == #entries then
    bytes, renew = 0, true
  end
  bytes = bytes + added

  local length_max, bytes_max = tonumber(ARGV[limits]), tonumber(ARGV[limits + 1])
  while length > length_max or bytes > bytes_max do
    local oldest = call('LPOP', list)
    if not oldest then
      return 0
    end
    length, bytes = length - 1, bytes - #oldest
  end
  if renew then
    bytes = drop_aged(list, bytes, tonumber(ARGV[limits + 2]))
    call('EXPIRE', list, ARGV[limits + 3])
  end
  return bytes
end

-- Settles the items whose keys are known already. Returns the records of the others, to be published after `offset`.
local function claim(answers, first, count, epoch, offset)
  local fresh = {}
  claimed = {}
  for i = 0, count - 1 do
    local fingerprint = ARGV[first + 2 * i + 1]
    local position = string.format('%s %.0f', epoch, offset + #fresh + 1)
    local known = call('GET', KEYS[answers + i])
    if not known then
      call('SET', KEYS[answers + i], fingerprint .. ' ' .. position, 'EX', ARGV[4])
      written = true
      claimed[#claimed + 1] = KEYS[answers + i]
      fresh[#fresh + 1] = ARGV[first + 2 * i]
      reply[#reply + 1] = position
    else
      -- To look first answers a repeat even when Redis takes no writes.
      local by, first_position = string.match(known, '^(%x+) (.*)$')
      reply[#reply + 1] = by == fingerprint and '=' .. first_position or '!'
    end
  end
  return fresh
end

-- Publishes the runs from the next one on. After an error it is called again, for those that follow.
local function publish()
  while KEYS[next_key] do
    local key_at, at = next_key, next_arg
    local value, renew, history, keyed, count = string.byte(ARGV[at + 1], 1, 5)
    value, renew = value > DIGIT, renew > DIGIT
    history, keyed, count = history - DIGIT, keyed - DIGIT, count - DIGIT
    local items, first = ARGV, at + 2 + 4 * history
    next_key = key_at + 1 + history + keyed * count
    next_arg = first + (1 + keyed) * count
    answered, written, claimed = #reply, false, nil

    local key, id, replaced = KEYS[key_at], caller, nil
    local state = call('HGET', key, caller)
    local epoch, offset, bytes = string.match(state or '', STATE)
    if not epoch then
      id, state, replaced = find(key)
      epoch, offset, bytes = string.match(state or ARGV[2] .. ' 0', STATE)
      renew = true
    end
    renew = renew or offset == '0'

    local last = first + count - 1
    if keyed > 0 then
      items, first = claim(key_at + 1 + history, first, count, epoch, offset), 1
      last = #items
    end
    if last < first then
      if renew then
        -- The caller takes it for done.
        call('EXPIRE', key, ARGV[3])
        if history > 0 then
          call('EXPIRE', KEYS[key_at + 1], ARGV[at + 5])
        end
      end
    else
      local first_offset, record = string.format('%.0f', offset + 1), items[last]
      local position = epoch .. ' ' .. first_offset
      local records = record
      state = position
      if last > first then
        state = string.format('%s %.0f', epoch, offset + 1 + last - first)
        records = table.concat(items, '', first, last)
      end
      if history > 0 then
        bytes = remember(KEYS[key_at + 1], items, first, last, offset + 1, first_offset, bytes, renew, at + 2)
        state = state .. ' ' .. bytes
      end
      call('HSET', key, id, state, 'v', value and record or '')
      written, claimed = true, nil
      if replaced then
        call('HDEL', key, unpack(replaced))
      end
      if renew then
        call('EXPIRE', key, ARGV[3])
      end
      call('PUBLISH', ARGV[at], '1' .. position .. '\n' .. records)
      if keyed == 0 then
        reply[answered + 1] = position
      end
    end
  end
end

while KEYS[next_key] do
  local at = next_key
  local done, problem = pcall(publish)
  if not done then
    if next_key == at then
      return redis.error_reply('the arguments end too early')
    end
    for line = #reply, answered + 1, -1 do
      reply[line] = nil
    end
    for _, answer in ipairs(claimed or {}) do
      redis.pcall('DEL', answer) -- else a retry would be told that it was published
    end
    local text = type(problem) == 'table' and problem.err or tostring(problem)
    reply[answered + 1] = (written and '?' or '-') .. string.gsub(text, '%c', ' ')
  end
end
reply[1] = true_id or ''
return table.concat(reply, '\n')
