package redisstreams

import (
	"context"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// read asks for what is new.
func (ln *leg) read(life context.Context, n int) (all []*flight, err error) {
	s := ln.s
	parts := ln.parts
	s.mu.Lock()
	hot := ln.hot
	s.mu.Unlock()
	if len(parts) > 1 && (n == 1 || hot) { // the count is that of each stream
		ln.turns++
		parts = parts[:1]
		if ln.turns%turnsOfMain == 0 || n == 1 && ln.turns%2 == 0 {
			parts = ln.parts[1:]
		}
	}
	args := append(make([]any, 0, 12), "XREADGROUP", "GROUP", &s.spec.From.Group, &s.name, "COUNT", max(n/len(parts), 1))
	if block := ln.blocks(hot || parts[0].key != ln.parts[0].key, n == 1); block > 0 {
		args = append(args, "BLOCK", block.Milliseconds())
	}
	args = append(args, "STREAMS")
	for i := range parts {
		args = append(args, &parts[i].key)
	}
	for range parts {
		args = append(args, ">")
	}
	ctx := context.Background() // die cuts the connection
	read, asked := redis.NewRawCmd(ctx, args...), time.Now()
	if !ln.exclusive {
		if err := ln.wire.Process(ctx, read); err != nil {
			return nil, err
		}
		all, err := ln.streams(read.Val(), parts, asked)
		ln.warm(len(all), max(n/len(parts), 1), hot && parts[0].key != ln.parts[0].key)
		return all, err
	}
	pipe := ln.wire.Pipeline()
	_ = pipe.Process(ctx, read)
	others := make([]*redis.RawCmd, len(ln.parts))
	for i := range ln.parts {
		others[i] = redis.NewRawCmd(ctx, "XPENDING", &ln.parts[i].key, &s.spec.From.Group)
		_ = pipe.Process(ctx, others[i])
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	if all, err = ln.streams(read.Val(), parts, asked); err != nil {
		return nil, err
	}
	ln.warm(len(all), max(n/len(parts), 1), hot && parts[0].key != ln.parts[0].key)
	for i := range others {
		ghosts, err := ln.ghosts(others[i].Val())
		if err != nil {
			return nil, err
		}
		for ghosts {
			var got []*flight
			if got, ghosts, err = ln.claim(life, &ln.parts[i], mostClaims, true); err != nil {
				return nil, err
			}
			all = append(all, got...)
		}
	}
	slices.SortStableFunc(all, func(a, b *flight) int {
		switch {
		case a.part != b.part, a.id == b.id:
			return 0
		case a.id.less(b.id):
			return -1
		}
		return 1
	})
	return all, nil
}

// turnOfOne is how long a read waits that is for one message: other places have their turn then.
const turnOfOne = 250 * time.Millisecond

// warm notes whether there may be more where a read has found something.
func (ln *leg) warm(got, asked int, aside bool) {
	ln.s.mu.Lock()
	defer ln.s.mu.Unlock()
	ln.hot = got >= asked || aside
}

// turnsOfMain is every how many reads that find much it is the turn of what is for the group alone.
const turnsOfMain = 8

// blocks is how long a read may wait: until something is due; not at all where that would keep others waiting.
func (ln *leg) blocks(not, one bool) time.Duration {
	s := ln.s
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := min(max(time.Until(ln.claimAt)+time.Millisecond, time.Millisecond), readTurn)
	switch {
	case not, ln.polls():
		return 0
	case one, len(s.legs) > s.spec.MaxInFlight: // they take turns
		wait = min(wait, turnOfOne)
	}
	return wait
}

// streams reads the answer to XREADGROUP.
func (ln *leg) streams(b []byte, parts []part, asked time.Time) (all []*flight, err error) {
	r, err := rawReply(b)
	if err != nil {
		return nil, err
	}
	r.each(func() {
		r.list()
		key := r.text()
		i := slices.IndexFunc(parts, func(p part) bool { return p.key == string(key) })
		if i < 0 {
			r.fail(errGarbled)
			return
		}
		ln.fields = r.entries(ln.fields, func(id entryID, fields [][]byte) {
			all = append(all, ln.flight(&parts[i], id, fields, 1, asked))
		})
	})
	return all, r.err
}

// flight makes one of an entry. Its lease begins when it was asked for: the server counts its idle time from when it was assigned, which is later, and an
// answer may have been on its way for any time.
func (ln *leg) flight(p *part, id entryID, fields [][]byte, count int64, asked time.Time) *flight {
	f := &flight{leg: ln, part: p, id: id, deliveries: int32(count % failedUnit), failed: int32(count / failedUnit)}
	if !ln.exclusive && !ln.live {
		f.lease = asked.Add(ln.s.spec.AckWait)
	}
	f.bad = ln.decoder.decode(&f.msg, fields)
	f.size = f.msg.Size()
	return f
}

// ghosts says whether consumers have something that should have nothing.
func (ln *leg) ghosts(b []byte) (found bool, err error) {
	r, err := rawReply(b)
	if err != nil {
		return false, err
	}
	r.list()
	r.number()
	r.text()
	r.text()
	r.each(func() {
		r.list()
		name := string(r.text())
		r.text()
		found = found || name != ln.s.name && name != waitingName
	})
	return found, r.err
}

// claim takes what is due, and what others have left: in an exclusive group all, at first; else what they have had for longer than the ack wait. What this
// consumer itself has lost by its own clock it leaves to others for as long again: it may be stuck.
func (ln *leg) claim(life context.Context, p *part, n int, old bool) (all []*flight, more bool, err error) {
	s := ln.s
	idle := s.spec.AckWait.Milliseconds()
	own := 2 * idle
	if ln.exclusive {
		if idle, own = -1, -1; old {
			idle = 0
		}
	}
	asked := time.Now()
	r, err := s.d.run(life, claimScript, []string{p.key, p.due, ln.lease}, s.spec.From.Group, s.name, s.mine, min(n, mostSteps), idle, own, flag(ln.exclusive))
	if err != nil {
		return nil, false, err
	}
	now := time.Now()
	r.list()
	ln.fields = r.entries(ln.fields, func(id entryID, fields [][]byte) {
		all = append(all, ln.flight(p, id, fields, 1, asked))
	})
	i := 0
	for range max(r.list(), 0) / 2 {
		id, _ := parseID(r.text())
		count := r.number()
		for i < len(all) && all[i].id.less(id) { // those between were deleted
			i++
		}
		if i < len(all) && all[i].id == id {
			all[i].deliveries, all[i].failed = int32(count%failedUnit), int32(count/failedUnit)
		}
	}
	more = r.number() > 0
	wait := claimTurn
	if next := r.number(); next >= 0 {
		wait = min(wait, time.Duration(next)*time.Millisecond)
	}
	wait = min(wait, max(s.spec.AckWait/4, 10*time.Millisecond))
	s.mu.Lock()
	if p == &ln.parts[0] {
		ln.claimAt = now.Add(wait)
	} else if at := now.Add(wait); at.Before(ln.claimAt) {
		ln.claimAt = at
	}
	if more {
		ln.claimAt = now
	}
	s.mu.Unlock()
	return all, more, r.err
}

// leave gives back all that this consumer has of the leg at the server, and then the lane. Where a hand-back is not counted the delivery is taken off.
func (ln *leg) leave(ctx context.Context, lane, counted bool) error {
	for i := range ln.parts {
		p, last := &ln.parts[i], i == len(ln.parts)-1
		if _, err := ln.s.d.run(ctx, leaveScript, []string{p.key, p.due, ln.lease}, ln.s.spec.From.Group, ln.s.name, flag(ln.exclusive), flag(lane && last), flag(!counted)); err != nil {
			return err
		}
	}
	return nil
}
