package redisstreams

import (
	"context"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	readTurn   = time.Second // how long a read waits at the server for something to come
	claimTurn  = 500 * time.Millisecond
	mostClaims = 256
)

// A leg reads one partition of a place: its stream, and what is for the group alone. In an exclusive group it reads only while the partition is this
// member's.
//
// Before it reads what is new it takes what this member's last session had not settled, in an exclusive group what any other member had not: a later
// message of a key must not be handled before. A member that has lost the partition and does not know it yet may have a read waiting at the server, which
// then assigns it what comes next. So each read of an exclusive leg asks, behind it and before anything of it is handed out, whether others have something.
type leg struct {
	s         *source
	lane      int32
	parts     []part
	exclusive bool
	live      bool   // a Broadcast: there is no group
	lease     string // the key
	retention time.Duration
	kick      chan struct{}

	wire    *wire // set and used by run; cut by die. mu is held to set it
	decoder decoder
	fields  [][]byte
	claimAt time.Time // when to look for what is due, or was left. mu is held
	pollAt  time.Time // when to read again, where nobody waits at the server
	next    entryID   // of a Broadcast: the last one that was read
	turns   int       // reads of one stream
	hot     bool      // the last read has found all that it asked for. mu is held
	swept   uint32    // the gen in which what this consumer had before was given back
	retries []again   // of a Broadcast. mu is held

	// s.mu is held for what follows
	gen     uint32
	gained  bool
	losing  time.Time // until when what runs may be settled; zero = it stays
	until   time.Time // of the lane's lease
	renewed time.Time
	old     bool // what was left comes first
	paused  bool
	buf     []*flight
	reading chan struct{} // closed when a read is over; nil = there is none
}

// A part is a stream that a leg reads.
type part struct {
	key, due string
	kind     pubsub.PlaceKind
	once     bool // what is settled is for nobody else, and is removed
}

// An again is an entry that a Broadcast is to deliver again.
type again struct {
	id         entryID
	at         time.Time
	failed     int32
	deliveries int32
}

func (s *source) newLeg(lane int32, t topicInfo) *leg {
	p := s.spec.From
	ln := &leg{s: s, lane: lane, kick: make(chan struct{}, 1), live: p.Group == pubsub.Broadcast, retention: t.retention}
	ln.parts = []part{{key: placeKey(p, lane), due: groupKey("due", p, lane), kind: p.Kind}}
	switch {
	case ln.live:
		ln.gained = true
		s.events = append(s.events, pubsub.LaneEvent{Lane: lane, Kind: pubsub.LaneGained})
		return ln
	case p.Kind == pubsub.PlaceMain:
		ln.exclusive, ln.lease = s.spec.Order.Exclusive(), groupKey("lease", p, lane)
		p.Kind = pubsub.PlaceRetry
		ln.parts = append(ln.parts, part{placeKey(p, lane), groupKey("due", p, lane) + "__retry", p.Kind, true})
	default: // one message of it is in flight in the whole group
		ln.exclusive, ln.lease = p.Kind == pubsub.PlaceQuarantine, groupKey("lease", p, lane)+"__own"
		ln.parts[0].due += "__own"
		ln.parts[0].once = true
	}
	if !ln.exclusive {
		ln.gain(time.Time{})
	}
	return ln
}

// ours says whether what the leg has may be handled. mu is held.
func (ln *leg) ours(now time.Time) bool {
	return ln.gained && ln.losing.IsZero() && (!ln.exclusive || ln.until.After(now))
}

// gain and lose tell the engine that the lane comes or goes. mu is held.
func (ln *leg) gain(until time.Time) {
	ln.gen++
	ln.gained, ln.old, ln.losing, ln.until, ln.renewed = true, true, time.Time{}, until, time.Now()
	ln.s.events = append(ln.s.events, pubsub.LaneEvent{Lane: ln.lane, Gen: ln.gen, Kind: pubsub.LaneGained})
	wake(ln.s.ready)
	wake(ln.kick)
}

func (ln *leg) lose(lost bool) {
	if !ln.gained {
		return
	}
	s := ln.s
	ln.gained, ln.losing = false, time.Time{}
	for f := s.oldest; f != nil; {
		next := f.next
		if f.leg == ln {
			s.drop(f)
		}
		f = next
	}
	ln.buf = nil
	if lost {
		s.events = append(s.events, pubsub.LaneEvent{Lane: ln.lane, Gen: ln.gen, Kind: pubsub.LaneLost})
		wake(s.ready)
	}
	s.wakeLegs()
}

// run reads until the session ends.
func (ln *leg) run() {
	s := ln.s
	for {
		n, ok := ln.await()
		if !ok {
			return
		}
		err := ln.turn(n)
		s.mu.Lock()
		s.asked -= n
		close(ln.reading)
		ln.reading = nil
		if len(s.legs) > 1 {
			s.wakeLegs()
		}
		s.mu.Unlock()
		if err != nil {
			s.die(err)
			return
		}
	}
}

// await returns how much may be read, once that is anything.
func (ln *leg) await() (n int, ok bool) {
	s := ln.s
	for {
		s.mu.Lock()
		wait := time.Duration(-1)
		now := time.Now()
		if s.dead != nil {
			s.mu.Unlock()
			return 0, false
		}
		if !s.quiet && !ln.paused && ln.ours(now) {
			if n = ln.room(); n > 0 {
				if wait = ln.pollAt.Sub(now); wait <= 0 {
					s.asked += n
					ln.reading = make(chan struct{})
					s.mu.Unlock()
					return n, true
				}
			}
		}
		s.mu.Unlock()
		var timer <-chan time.Time
		if wait > 0 {
			timer = time.After(wait)
		}
		select {
		case <-ln.kick:
		case <-timer:
		case <-s.life.Done():
			return 0, false
		}
	}
}

// room is how many messages the leg may ask for: its share, unless that is so little that it is not worth while, and of no use to anybody. mu is held.
func (ln *leg) room() int {
	s := ln.s
	active := 0
	for _, o := range s.legs {
		if o.gained {
			active++
		}
	}
	share := max(1, s.spec.MaxInFlight/max(active, 1))
	n := min(s.spec.MaxInFlight-s.unsettled-s.asked, share)
	left := s.spec.MaxInFlightBytes - s.bytes
	switch {
	case n <= 0 || left <= 0, n < share/4 && !s.hungry:
		return 0
	case active > 1 && !ln.hot: // what a read asks for that waits at the server the others cannot have
		n = min(n, max(1, share/8))
	}
	return min(n, int(max(left/s.typical, 1)))
}

// turn reads once: what was left, what is due, or what is new.
func (ln *leg) turn(n int) error {
	s := ln.s
	if ln.wire == nil {
		w, err := s.d.wireTo(s.life, ln.parts[0].key, readTurn+answerWithin)
		if err != nil {
			return err
		}
		s.mu.Lock()
		ln.wire = w
		if s.dead != nil {
			w.cut()
		}
		s.mu.Unlock()
	}
	if ln.live {
		return ln.readLive(n)
	}
	s.mu.Lock()
	gen, old, due := ln.gen, ln.old, !ln.claimAt.After(time.Now())
	s.mu.Unlock()
	var all []*flight
	if old && ln.exclusive && ln.swept != gen { // of a time before the lane was lost and came again
		if err := ln.leave(s.life, false, false); err != nil {
			return err
		}
		ln.swept = gen
	}
	if old || due {
		more := false
		for i := range ln.parts {
			got, rest, err := ln.claim(&ln.parts[i], n-len(all), old)
			if err != nil {
				return err
			}
			all, more = append(all, got...), more || rest
		}
		if more || len(all) >= n {
			return ln.arrive(gen, all)
		}
		s.mu.Lock()
		if ln.gen == gen {
			ln.old = false
		}
		s.mu.Unlock()
		if len(all) > 0 {
			return ln.arrive(gen, all)
		}
	}
	all, err := ln.read(n)
	if err != nil {
		return err
	}
	return ln.arrive(gen, all)
}

// arrive takes flights in.
func (ln *leg) arrive(gen uint32, all []*flight) error {
	s := ln.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if ln.polls() {
		ln.pollAt = time.Time{}
		if len(all) == 0 {
			ln.pollAt = time.Now().Add(pollPause)
		}
	}
	if s.dead != nil || ln.gen != gen || !ln.gained || !ln.losing.IsZero() {
		return nil // they are still this consumer's at the server, which leave gives back, or the next owner takes
	}
	var bytes int64
	for _, f := range all {
		f.gen = gen
		s.hold(f)
		bytes += f.size
	}
	if len(all) == 0 {
		return nil
	}
	s.typical = max(bytes/int64(len(all)), 64)
	ln.buf = append(ln.buf, all...)
	wake(s.ready)
	return nil
}

// pollPause is how often the quarantine is looked at. A read that waits at the server could be given a message on a connection that breaks, and there a
// delivery is the proof.
const pollPause = 400 * time.Millisecond

func (ln *leg) polls() bool { return ln.parts[0].kind == pubsub.PlaceQuarantine }

// read asks for what is new.
func (ln *leg) read(n int) (all []*flight, err error) {
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
	read := redis.NewRawCmd(ctx, args...)
	if !ln.exclusive {
		if err := ln.wire.Process(ctx, read); err != nil {
			return nil, err
		}
		all, err := ln.streams(read.Val(), parts)
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
	if all, err = ln.streams(read.Val(), parts); err != nil {
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
			if got, ghosts, err = ln.claim(&ln.parts[i], mostClaims, true); err != nil {
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
func (ln *leg) streams(b []byte, parts []part) (all []*flight, err error) {
	r, err := rawReply(b)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	r.each(func() {
		r.list()
		key := r.text()
		i := slices.IndexFunc(parts, func(p part) bool { return p.key == string(key) })
		if i < 0 {
			r.fail(errGarbled)
			return
		}
		ln.fields = r.entries(ln.fields, func(id entryID, fields [][]byte) {
			all = append(all, ln.flight(&parts[i], id, fields, 1, now))
		})
	})
	return all, r.err
}

// flight makes one of an entry.
func (ln *leg) flight(p *part, id entryID, fields [][]byte, count int64, now time.Time) *flight {
	f := &flight{leg: ln, part: p, id: id, deliveries: int32(count % failedUnit), failed: int32(count / failedUnit)}
	if !ln.exclusive && !ln.live {
		f.lease = now.Add(ln.s.spec.AckWait - onItsWay(ln.s.spec.AckWait))
	}
	f.bad = ln.decoder.decode(&f.msg, fields)
	f.size = f.msg.Size()
	return f
}

// onItsWay is how long an entry may have been on its way: the server counts its idle time from when it was assigned.
func onItsWay(ackWait time.Duration) time.Duration { return min(ackWait/10, time.Second) }

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

// claim takes what is due, and what others have left: in an exclusive group all, at first; else what anybody has had for longer than the ack wait, also this
// consumer, which has then lost it by its own clock.
func (ln *leg) claim(p *part, n int, old bool) (all []*flight, more bool, err error) {
	s := ln.s
	idle := s.spec.AckWait.Milliseconds()
	own := idle
	if ln.exclusive {
		if idle, own = -1, -1; old {
			idle = 0
		}
	}
	r, err := s.d.run(s.life, claimScript, []string{p.key, p.due}, s.spec.From.Group, s.name, s.mine, n, idle, own)
	if err != nil {
		return nil, false, err
	}
	now := time.Now()
	r.list()
	ln.fields = r.entries(ln.fields, func(id entryID, fields [][]byte) {
		all = append(all, ln.flight(p, id, fields, 1, now))
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
