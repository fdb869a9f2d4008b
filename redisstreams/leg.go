package redisstreams

import (
	"context"
	"time"

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
func (ln *leg) run(life context.Context) {
	s := ln.s
	for {
		n, ok := ln.await(life)
		if !ok {
			return
		}
		err := ln.turn(life, n)
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
func (ln *leg) await(life context.Context) (n int, ok bool) {
	s := ln.s
	for {
		s.mu.Lock()
		wait := time.Duration(-1)
		now := time.Now()
		if s.dead != nil {
			s.mu.Unlock()
			return 0, false
		}
		if !s.quiet && ln.ours(now) {
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
		case <-life.Done():
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
func (ln *leg) turn(life context.Context, n int) error {
	s := ln.s
	if ln.wire == nil {
		w, err := s.d.wireTo(life, ln.parts[0].key, readTurn+answerWithin)
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
		if err := ln.leave(life, false, false); err != nil {
			return err
		}
		ln.swept = gen
	}
	if old || due {
		more := false
		for i := range ln.parts {
			got, rest, err := ln.claim(life, &ln.parts[i], n-len(all), old)
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
	all, err := ln.read(life, n)
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
