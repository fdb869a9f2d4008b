package redisstreams

import (
	"crypto/sha1" //nolint:gosec // the server names scripts by it
	"encoding/hex"
)

// A script is carried out by the server, all of it or nothing.
type script struct{ text, sha string }

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text)) //nolint:gosec // see above
	return &script{text, hex.EncodeToString(sum[:])}
}

// The count that the server keeps for each pending entry holds two: its last six digits how often the entry was delivered, which the server raises
// itself, those before them how often the handler has failed. So both are set by the command that claims an entry, and none can be lost.
const failedUnit = 1_000_000

// clock is the server's, in milliseconds.
const clock = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`

// clockScript tells the time of the server that has a key.
var clockScript = newScript(clock + `return now`)

// dueIDs says when something is due, and under which id: not before the delay is over, although both ends are cut to milliseconds.
const dueIDs = `
local function dueAfter(delay)
	delay = tonumber(delay)
	if delay > 0 then delay = delay + 1 end
	return now + delay
end
` + dueID

// dueID writes an id so that those that are due at the same time are in their order. The server reads ids in this form too.
const dueID = `
local function dueID(id)
	local ms, seq = string.match(id, '(%d+)-(%d+)')
	return ms .. '-' .. string.rep('0', 20 - #seq) .. seq
end
`

// addScript adds an entry where the plain command cannot: with a token, or for later.
// KEYS: stream, stream of what is for later, when that is due, token. ARGV: how long the token is remembered, delay in ms or -1, the server's own
// idempotence ("" = none), fields...
var addScript = newScript(clock + dueIDs + `
local window = tonumber(ARGV[1])
if window > 0 then
	local id = redis.call('GET', KEYS[4])
	if id then
		redis.call('PEXPIRE', KEYS[4], math.max(redis.call('PTTL', KEYS[4]), 1)) -- a write, since WAIT looks at those of this connection only
		return id
	end
end
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local delay, to, args = tonumber(ARGV[2]), KEYS[1], {}
if delay >= 0 then to = KEYS[2] end
if ARGV[3] ~= '' and delay < 0 then
	args = {'IDMP', ARGV[3], string.match(KEYS[4], '[^:]*$')}
end
args[#args + 1] = '*'
for i = 4, #ARGV do args[#args + 1] = ARGV[i] end -- of two lists that are unpacked into one call the first would count as one value
local id = redis.call('XADD', to, unpack(args))
if delay >= 0 then redis.call('ZADD', KEYS[3], dueAfter(delay), dueID(id)) end
if window > 0 then redis.call('SET', KEYS[4], id, 'PX', window) end
return id
`)

// laterScript adds what is due, and returns when the next one is, -1 for none. What was for a topic that is gone, goes too.
// KEYS: stream, stream of what is for later, when that is due.
var laterScript = newScript(clock + `
local there = redis.call('EXISTS', KEYS[1]) == 1
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 128)) do
	local entry = redis.call('XRANGE', KEYS[2], id, id)[1]
	if entry and there then redis.call('XADD', KEYS[1], '*', unpack(entry[2])) end
	redis.call('XDEL', KEYS[2], id)
	redis.call('ZREM', KEYS[3], id)
end
local next = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
if #next == 0 then return -1 end
return math.max(next[2] - now, 0)
`)

// claimScript gives this consumer what is due, and what others have left. It returns the entries, in their order, their counts, how many more there are
// at least, and when the next is due (-1 = none).
// It gives nothing to who needs a lease and has it no more: that would take from the owner.
// KEYS: stream, due, lease. ARGV: group, consumer, beginning of the names that it had before, count, after how much idle time it takes from others, and
// from itself, -1 = not at all; whether it needs the lease (1).
var claimScript = newScript(clock + `
local key, due, group, me, mine = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local count, idle, again = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
if ARGV[7] == '1' and redis.call('GET', KEYS[3]) ~= me then return {{}, {}, 0, -1} end
local found, counts, more = {}, {}, 0
local function find(id, n)
	local ms, seq = string.match(id, '(%d+)-(%d+)')
	found[#found + 1] = {id, tonumber(ms), tonumber(seq)}
	counts[id] = n + 1
end
if count > 0 then
	for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, count)) do
		local p = redis.call('XPENDING', key, group, id, id, 1)[1]
		if p and p[2] == '` + waitingName + `' then find(id, p[4]) else redis.call('ZREM', due, id) end
	end
end
local left = count - #found
for _, c in ipairs(redis.call('XINFO', 'CONSUMERS', key, group)) do
	local f = {}
	for i = 1, #c, 2 do f[c[i]] = c[i + 1] end
	local least, before = idle, f.name ~= me and string.sub(f.name, 1, #mine) == mine
	if f.name == me then least = again elseif before then least = 0 end
	if f.name == '` + waitingName + `' or least < 0 then
		-- nothing of it
	elseif f.pending == 0 then
		if f.name ~= me and (before or f.idle > 60000) then redis.call('XGROUP', 'DELCONSUMER', key, group, f.name) end
	else
		local list = redis.call('XPENDING', key, group, 'IDLE', least, '-', '+', math.max(left, 0) + 1, f.name)
		for _, p in ipairs(list) do find(p[1], p[4]) end
	end
end
table.sort(found, function(a, b) if a[2] ~= b[2] then return a[2] < b[2] end return a[3] < b[3] end)
local ids, said = {}, {}
for i, f in ipairs(found) do
	if i <= count then
		ids[i] = f[1]
		said[2 * i - 1], said[2 * i] = f[1], counts[f[1]]
		redis.call('ZREM', due, f[1]) -- what is not taken now stays due
	else
		more = more + 1
	end
end
local entries = {}
if #ids > 0 then entries = redis.call('XCLAIM', key, group, me, 0, unpack(ids)) end
local next = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
local wait = -1
if #next > 0 then wait = math.max(next[2] - now, 0) end
return {entries, said, more, wait}
`)

// settleScript settles entries whose owner may be another one by now, and returns those of which that is so.
// KEYS: stream, due, lease. ARGV: group, consumer, whether the lease tells who owns them (1), the lowest and the highest
// id, then for each entry: what is to be done, id, count, delay in ms.
var settleScript = newScript(clock + dueIDs + `
local key, due, group, me = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local mine, lost = {}, {}
if ARGV[3] == '1' then
	if redis.call('GET', KEYS[3]) == me then
		setmetatable(mine, {__index = function() return true end})
	end
elseif #ARGV > 5 then
	for _, p in ipairs(redis.call('XPENDING', key, group, ARGV[4], ARGV[5], 1000000, me)) do mine[p[1]] = true end
end
local acks, renewals = {}, {}
for i = 6, #ARGV, 4 do
	local what, id, count = ARGV[i], ARGV[i + 1], ARGV[i + 2]
	if not mine[id] then lost[#lost + 1] = id
	elseif what == 'ack' or what == 'del' then
		acks[#acks + 1] = id
		if what == 'del' then redis.call('XDEL', key, id) end
	elseif what == 'renew' then
		if count == '0' then renewals[#renewals + 1] = id
		else redis.call('XCLAIM', key, group, me, 0, id, 'RETRYCOUNT', count, 'JUSTID') end
	else
		redis.call('XCLAIM', key, group, '` + waitingName + `', 0, id, 'RETRYCOUNT', count, 'JUSTID')
		redis.call('ZADD', due, dueAfter(ARGV[i + 3]), dueID(id))
	end
end
if #acks > 0 then redis.call('XACK', key, group, unpack(acks)) end
if #renewals > 0 then
	renewals[#renewals + 1] = 'JUSTID'
	redis.call('XCLAIM', key, group, me, 0, unpack(renewals))
end
return lost
`)

// waitingScript returns entries that wait and are not due, the soonest first, with their counts and when they are due, and with which of them it ended. Many may
// be due at the same time, so a page begins behind the last entry of the one before; where that is gone, behind all that come no later.
// KEYS: stream, due. ARGV: group, when the last entry of the page before was due, that entry ("" = none), how many.
var waitingScript = newScript(clock + `
local key, due, group, last, n = KEYS[1], KEYS[2], ARGV[1], ARGV[3], tonumber(ARGV[4])
local from = math.max(tonumber(ARGV[2]), now + 1)
local base
local score = last ~= '' and redis.call('ZSCORE', due, last)
if score and tonumber(score) == from then
	base = redis.call('ZRANK', due, last) + 1
else
	base = redis.call('ZCOUNT', due, '-inf', '(' .. string.format('%.0f', from))
end
local entries, said, at, name = {}, {}, 0, ''
while name == '' do
	local list = redis.call('ZRANGE', due, base, base + n - 1, 'WITHSCORES')
	if #list == 0 then break end
	for i = 1, #list, 2 do
		local id = list[i]
		if tonumber(list[i + 1]) > from or last == '' or id > last then
			at, name = tonumber(list[i + 1]), id
			local p = redis.call('XPENDING', key, group, id, id, 1)[1]
			local entry = p and p[2] == '` + waitingName + `' and redis.call('XRANGE', key, id, id)[1]
			if entry then
				entries[#entries + 1] = entry
				said[#said + 1], said[#said + 2], said[#said + 3] = entry[1], at, p[4]
			end
		end
	end
	base = base + n
end
return {entries, said, at, name}
`)

// changeWaitingScript lets an entry that waits be due at another time, or settles it; it returns when it is due. Where it waits no more, or not for that time, it
// returns -1: somebody has got it, or has changed that.
// KEYS: stream, due. ARGV: group, entry, when it is due, what is to be done, delay in ms.
var changeWaitingScript = newScript(clock + dueIDs + `
local key, due, group, id, what = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[4]
local score = redis.call('ZSCORE', due, id)
local p = redis.call('XPENDING', key, group, id, id, 1)[1]
if not score or tonumber(score) ~= tonumber(ARGV[3]) or not p or p[2] ~= '` + waitingName + `' then return -1 end
if what == 'due' then
	local at = dueAfter(ARGV[5])
	redis.call('ZADD', due, at, id)
	return at
end
redis.call('XACK', key, group, id)
if what == 'del' then redis.call('XDEL', key, id) end
redis.call('ZREM', due, id)
return 0
`)

// leaveScript gives back all that a consumer has, and removes it. What an exclusive group gets back waits for the next owner, which takes it in its order;
// else it is due.
// KEYS: stream, due, lease. ARGV: group, consumer, whether the group is exclusive (1), whether the lease ends too (1), how many deliveries it takes off the
// counts.
var leaveScript = newScript(dueID + `
local key, due, group, me = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local to = ARGV[3] == '1' and '` + leftName + `' or '` + waitingName + `'
if redis.call('EXISTS', key) == 0 then return 0 end
while true do
	local list = redis.call('XPENDING', key, group, '-', '+', 256, me)
	if #list == 0 then break end
	for _, p in ipairs(list) do
		local count = p[4]
		if count % 1000000 > 0 then count = count - ARGV[5] end
		redis.call('XCLAIM', key, group, to, 0, p[1], 'RETRYCOUNT', count, 'JUSTID')
		if to == '` + waitingName + `' then redis.call('ZADD', due, 0, dueID(p[1])) end
	end
end
redis.call('XGROUP', 'DELCONSUMER', key, group, me)
if ARGV[4] == '1' and redis.call('GET', KEYS[3]) == me then redis.call('DEL', KEYS[3]) end
return 1
`)

// leaseScript takes a partition that nobody has, or keeps one: it returns 1 if it is this consumer's.
// What the last session of this member has is free: it has ended.
// KEYS: lease. ARGV: consumer, for how long, whether it may be taken (1), beginning of the names that the consumer had before.
var leaseScript = newScript(`
local owner = redis.call('GET', KEYS[1])
if owner == ARGV[1] then
	redis.call('PEXPIRE', KEYS[1], ARGV[2])
	return 1
end
if ARGV[3] ~= '1' or owner and string.sub(owner, 1, #ARGV[4]) ~= ARGV[4] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
`)

// membersScript says that a member is there, and returns all that are, in the order of their names.
// KEYS: members. ARGV: member ("" = nobody), for how long.
var membersScript = newScript(clock + `
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if ARGV[1] ~= '' then redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1]) end
local all = redis.call('ZRANGE', KEYS[1], 0, -1)
table.sort(all)
return all
`)

// trimScript removes entries that are older than that, up to the first one that a group has not acked.
// KEYS: stream. ARGV: age in ms.
var trimScript = newScript(clock + `
local function parts(id)
	local ms, seq = string.match(id, '(%d+)-(%d+)')
	return tonumber(ms), tonumber(seq)
end
local limit = math.max(now - ARGV[1], 0) .. '-0'
for _, g in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
	local f = {}
	for i = 1, #g, 2 do f[g[i]] = g[i + 1] end
	local first = f['last-delivered-id']
	if f.pending > 0 then first = redis.call('XPENDING', KEYS[1], f.name)[2] end
	local a, b = parts(first)
	local c, d = parts(limit)
	if a < c or a == c and b < d then limit = first end
end
return redis.call('XTRIM', KEYS[1], 'MINID', limit)
`)

// topicScript makes a topic, or a partition of it, or looks at what is there. It returns whether it was there, and its settings.
// A server with idempotence of its own is to remember more than its 100 ids, which are fewer than one run has. That is set here only: a change forgets all.
// KEYS: stream, settings. ARGV: whether to make it (1), for how many seconds ids are remembered, settings...
var topicScript = newScript(`
local there = redis.call('EXISTS', KEYS[1])
if there == 0 and ARGV[1] == '1' then
	redis.call('XGROUP', 'CREATE', KEYS[1], 'omnibus.new', '$', 'MKSTREAM')
	redis.call('XGROUP', 'DESTROY', KEYS[1], 'omnibus.new')
	redis.call('DEL', KEYS[2])
	redis.pcall('XCFGSET', KEYS[1], 'IDMP-MAXSIZE', 4096, 'IDMP-DURATION', ARGV[2]) -- older ones do not know it
	if #ARGV > 2 then redis.call('HSET', KEYS[2], unpack(ARGV, 3)) end
end
return {there, redis.call('HGETALL', KEYS[2])}
`)

// groupScript makes a group in one partition, with its places, or looks at what is there. It returns what is missing, if anything is, and what the members
// have agreed on.
// KEYS: stream, settings, places... ARGV: whether to make it (1), group, where it starts, ack wait, whether it is exclusive (1).
var groupScript = newScript(`
if redis.call('EXISTS', KEYS[1]) == 0 then return {'topic'} end
local found = false
for _, g in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
	if g[2] == ARGV[2] then found = true end
end
local have = redis.call('HMGET', KEYS[2], 'ackwait', 'exclusive')
if found and have[1] and (have[1] ~= ARGV[4] or have[2] ~= ARGV[5]) then return {'', have[1], have[2]} end
if ARGV[1] ~= '1' then
	if not found or not have[1] then return {'group'} end
	return {'', have[1], have[2]}
end
for i = 3, #KEYS do
	if redis.call('EXISTS', KEYS[i]) == 0 then redis.call('XGROUP', 'CREATE', KEYS[i], ARGV[2], '0', 'MKSTREAM') end
end
redis.call('HSET', KEYS[2], 'ackwait', ARGV[4], 'exclusive', ARGV[5])
if not found then redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[2], ARGV[3]) end
return {'', ARGV[4], ARGV[5]}
`)

// seekScript moves a group.
// KEYS: stream, due. ARGV: group, where to.
var seekScript = newScript(`
redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], ARGV[2])
redis.call('DEL', KEYS[2])
return 1
`)
