package redisstreams

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A source reads the partitions of a place, each through a leg. What is asked for, what lies here and what the engine has out are together at
// most MaxInFlight.
type source struct {
	d      *driver
	spec   pubsub.SourceSpec
	name   string // of this session's consumer: another one for each session, so that a late word of the last one is none of this one's
	mine   string // with this the names of all of them begin
	member string // by which the members of the group know each other: the older ones come first
	ready  chan struct{}
	stop   context.CancelFunc
	all    sync.WaitGroup // what goes on in the background
	lanes  sync.Mutex     // one change of who has a lane at a time; taken before mu

	mu        sync.Mutex
	legs      []*leg
	events    []pubsub.LaneEvent
	dead      error
	quiet     bool
	hungry    bool    // Recv waits
	oldest    *flight // all that is here and not settled, in the order of arrival
	newest    *flight
	unsettled int
	asked     int
	bytes     int64
	from      int   // the leg to begin with, so that all get their turn
	typical   int64 // bytes of a message
}

// A flight is a message that has come and is not settled.
type flight struct {
	msg        pubsub.Message
	leg        *leg
	part       *part
	gen        uint32
	id         entryID
	deliveries int32
	failed     int32     // as the server has it
	lease      time.Time // of an exclusive lane: as the engine knows it, once it does
	size       int64
	bad        error
	state      flightState
	prev, next *flight
}

type flightState uint8

const (
	flightHere flightState = iota // in its leg's buffer
	flightOut                     // with the engine
	flightDone
)

// count is what the server keeps for the flight.
func (f *flight) count(failed int32, deliveries int32) int64 {
	return int64(failed)*failedUnit + int64(max(deliveries, 0))
}

// OpenSource implements pubsub.Driver.
func (d *driver) OpenSource(ctx context.Context, spec pubsub.SourceSpec) (pubsub.Source, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	if spec.Manage == pubsub.Off {
		spec.Manage = pubsub.Verify
	}
	s := &source{d: d, spec: spec, mine: spec.Member + ".", ready: make(chan struct{}, 1), typical: 8 << 10}
	s.name = fmt.Sprintf("%s%d", s.mine, d.numbers.Add(1))
	s.member = d.member(spec.Member)
	var life context.Context
	life, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	var t topicInfo
	var err error
	broadcast := spec.From.Group == pubsub.Broadcast
	if broadcast {
		t, err = d.ensureTopic(ctx, pubsub.TopicSpec{Name: spec.From.Topic}, spec.Manage)
	} else {
		t, err = d.ensureGroup(ctx, spec)
	}
	if spec.From.Kind == pubsub.PlaceQuarantine {
		t.partitions = 1
	}
	for lane := range int32(t.partitions) {
		if err != nil {
			break
		}
		ln := s.newLeg(lane, t)
		s.legs = append(s.legs, ln)
		if broadcast {
			err = ln.begin(ctx)
		}
	}
	s.deliverLater()
	if err == nil {
		err = d.add(s)
	}
	if err != nil {
		s.stop()
		return nil, err
	}
	if err := s.join(ctx); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	s.all.Go(func() { s.tend(life) })
	for _, ln := range s.legs {
		s.all.Go(func() { ln.run(life) })
	}
	return s, nil
}

func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// wakeLegs lets legs look whether there is room. mu is held.
func (s *source) wakeLegs() {
	for _, ln := range s.legs {
		wake(ln.kick)
	}
}

// die ends the session.
func (s *source) die(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead == nil {
		s.dead = err
	}
	s.stop()
	for _, ln := range s.legs {
		if ln.wire != nil {
			ln.wire.cut()
		}
	}
	wake(s.ready)
}

// Recv implements pubsub.Source.
func (s *source) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	for {
		s.mu.Lock()
		if s.dead != nil {
			err := s.dead
			s.mu.Unlock()
			return 0, nil, err
		}
		events := s.events
		s.events = nil
		n := 0
		if ctx.Err() == nil {
			n = s.fill(buf, maxBytes)
		}
		if s.hungry = n == 0 && len(buf) > 0; s.hungry {
			s.wakeLegs()
		}
		s.mu.Unlock()
		if n > 0 || len(events) > 0 {
			return n, events, nil
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		}
	}
}

// fill hands out what has come. mu is held.
func (s *source) fill(buf []pubsub.Record, maxBytes int64) (n int) {
	now := time.Now()
	for i := range s.legs {
		ln := s.legs[(s.from+i)%len(s.legs)]
		if s.quiet || !ln.ours(now) {
			continue
		}
		for n < len(buf) && len(ln.buf) > 0 && (n == 0 || maxBytes > 0) {
			f := ln.buf[0]
			ln.buf[0] = nil
			ln.buf = ln.buf[1:]
			if ln.exclusive {
				f.lease = ln.until
			}
			if !f.lease.IsZero() && !f.lease.After(now) { // it was not renewed in time, and comes again
				s.drop(f)
				continue
			}
			f.state = flightOut
			maxBytes -= f.size
			r := &buf[n]
			r.Msg, r.Topic, r.Bad, r.LeaseUntil = &f.msg, s.spec.From.Topic, f.bad, f.lease
			r.Pos = f.id.position(ln.lane, f.part.kind)
			r.Token = pubsub.Token{Lane: ln.lane, Gen: f.gen, A: f.id.ms, B: f.id.seq, Ref: f}
			r.Deliveries, r.Failed = f.deliveries, f.failed
			n++
		}
	}
	s.from++
	return n
}

// hold adds a flight, drop removes it. mu is held.
func (s *source) hold(f *flight) {
	if f.prev = s.newest; f.prev == nil {
		s.oldest = f
	} else {
		f.prev.next = f
	}
	s.newest = f
	s.unsettled++
	s.bytes += f.size
}

func (s *source) drop(f *flight) {
	if f.prev == nil {
		s.oldest = f.next
	} else {
		f.prev.next = f.next
	}
	if f.next == nil {
		s.newest = f.prev
	} else {
		f.next.prev = f.prev
	}
	f.prev, f.next, f.state = nil, nil, flightDone
	s.unsettled--
	s.bytes -= f.size
}

// Quiesce implements pubsub.Source. It returns when all that the server had assigned is here, and goes back.
func (s *source) Quiesce(ctx context.Context) error {
	s.mu.Lock()
	s.quiet = true
	s.wakeLegs()
	s.mu.Unlock()
	if err := s.still(ctx, s.legs); err != nil {
		return err
	}
	s.mu.Lock()
	dead := s.dead
	var back []pubsub.Settlement
	for _, ln := range s.legs {
		for _, f := range ln.buf {
			f.state = flightOut
			back = append(back, pubsub.Settlement{Token: pubsub.Token{Ref: f}, As: pubsub.SettleRelease, Failed: f.failed})
		}
		ln.buf = nil
	}
	s.mu.Unlock()
	if dead != nil || len(back) == 0 {
		return dead
	}
	return s.Settle(ctx, back, make([]error, len(back)))
}

// still returns when none of the legs reads any more. They must have been told.
func (s *source) still(ctx context.Context, legs []*leg) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for _, ln := range legs {
		for {
			s.mu.Lock()
			reading, w, dead := ln.reading, ln.wire, s.dead
			s.mu.Unlock()
			switch {
			case dead != nil:
				return dead
			case reading == nil:
			case w != nil:
				if err := s.d.unblock(ctx, w); err != nil && !redis.IsPermissionError(err) { // who may not do that waits until the read has its end
					return err
				}
			}
			if reading == nil {
				break
			}
			select {
			case <-reading:
			case <-tick.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// Sync implements pubsub.Source: what Settle has returned of is stored as well as anything is.
func (s *source) Sync(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead
}

// LaneDone implements pubsub.Source.
func (s *source) LaneDone(ctx context.Context, losing pubsub.LaneEvent) error {
	s.mu.Lock()
	i := slices.IndexFunc(s.legs, func(ln *leg) bool { return ln.lane == losing.Lane && ln.gen == losing.Gen && !ln.losing.IsZero() })
	s.mu.Unlock()
	if i < 0 {
		return nil
	}
	return s.giveUp(ctx, s.legs[i], losing.Gen)
}

// giveUp lets another member have a lane, unless it was lost meanwhile: it may have come again since, to stay.
func (s *source) giveUp(ctx context.Context, ln *leg, gen uint32) error {
	if err := s.still(ctx, []*leg{ln}); err != nil {
		return err
	}
	s.lanes.Lock()
	defer s.lanes.Unlock()
	s.mu.Lock()
	current := ln.gen == gen && !ln.losing.IsZero()
	if current {
		ln.lose(false)
	}
	s.mu.Unlock()
	if !current {
		return nil
	}
	return ln.leave(ctx, true, false)
}

// Close implements pubsub.Source. What is not settled goes back, at once if the server answers.
func (s *source) Close(ctx context.Context) error {
	s.shut(ctx, false)
	s.d.remove(s)
	return nil
}

// end implements session: it ends as with its process, so that what it had counts as delivered.
func (s *source) end(ctx context.Context) { s.shut(ctx, true) }

// shut does nothing the second time.
func (s *source) shut(ctx context.Context, counted bool) {
	s.mu.Lock()
	alive := s.dead == nil
	broken := !alive
	s.quiet = true
	s.wakeLegs()
	s.mu.Unlock()
	if alive {
		if still, cancel := context.WithTimeout(ctx, 2*readTurn); s.still(still, s.legs) != nil {
			alive = false
			cancel()
		} else {
			cancel()
		}
	}
	s.die(errGone)
	s.all.Wait()
	if s.spec.From.Group == pubsub.Broadcast {
		s.stand(broken)
	}
	for _, ln := range s.legs {
		if ln.wire != nil {
			ln.wire.close()
		}
		if alive && !ln.live && ln.leave(ctx, true, counted) != nil {
			alive = false // what it had comes again when its leases end
		}
	}
	if alive && s.balanced() {
		_, _ = s.d.ask(ctx, "ZREM", groupKey("members", s.spec.From, 0), s.member) // else it is forgotten in time
		s.d.members.Delete(s.spec.Member)
	}
}

// balanced says whether members of the group know of each other.
func (s *source) balanced() bool {
	return s.spec.From.Kind == pubsub.PlaceMain && s.spec.From.Group != pubsub.Broadcast
}

// RecordAs implements pubsub.RecordAser: target may be a *string, which gets the id of the entry.
func (s *source) RecordAs(t pubsub.Token, target any) bool {
	id, ok := target.(*string)
	f, have := t.Ref.(*flight)
	if ok && have {
		*id = f.id.String()
	}
	return ok && have
}
