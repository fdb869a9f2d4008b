package redisstreams

import (
	"context"
	"errors"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// The members of a group tell the server that they are there. Of the partitions of an exclusive group each member is to have its share, the older ones one
// more where it does not come out even: who has more gives some up, who has fewer takes what is free. So an active member stays when another one comes
// to stand by. A partition has a lease at the server; whoever dies has it until that ends.

// tend does what has its time: leases of partitions and of what lies here, what is too old.
func (s *source) tend(life context.Context) {
	tick := time.NewTicker(s.tick())
	defer tick.Stop()
	trim := time.NewTicker(trimTurn)
	defer trim.Stop()
	for {
		var err error
		ctx, cancel := context.WithTimeout(life, answerWithin)
		select {
		case <-tick.C:
			err = s.round(ctx)
		case <-trim.C:
			s.deliverLater()
			err = s.trim(ctx)
		case <-life.Done():
		}
		cancel()
		switch {
		case life.Err() != nil:
			return
		case errors.Is(err, context.DeadlineExceeded):
			s.die(errDown)
		case err != nil:
			s.die(err)
		}
	}
}

const trimTurn = 10 * time.Second

// tick is how often. Where there are partitions to be shared out a new member is not to wait for its own.
func (s *source) tick() time.Duration {
	usual := 500 * time.Millisecond
	if len(s.legs) > 1 && s.spec.Order.Exclusive() {
		usual = 100 * time.Millisecond
	}
	return min(max(s.spec.AckWait/6, 20*time.Millisecond), usual)
}

// join looks until this member has its share, for a while: whoever has too much gives it up as soon as what runs there has ended.
func (s *source) join(ctx context.Context) error {
	end := time.Now().Add(joinTime)
	for {
		enough, err := s.share(ctx)
		if err != nil || enough || !s.balanced() || time.Now().After(end) {
			return err
		}
		select {
		case <-time.After(joinTurn):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

const (
	joinTime = 500 * time.Millisecond
	joinTurn = 20 * time.Millisecond
)

// round looks once.
func (s *source) round(ctx context.Context) error {
	if _, err := s.share(ctx); err != nil {
		return err
	}
	return s.renewHere(ctx)
}

// share keeps, takes and gives up lanes, and says whether this member has its share.
func (s *source) share(ctx context.Context) (enough bool, err error) {
	rank, members := 0, 1
	if s.balanced() {
		ttl := s.spec.AckWait + 2*s.tick()
		r, err := s.d.run(ctx, membersScript, []string{groupKey("members", s.spec.From, 0)}, s.member, ttl.Milliseconds())
		if err != nil {
			return false, err
		}
		members = 0
		r.each(func() {
			if string(r.text()) == s.member {
				rank = members
			}
			members++
		})
		if r.err != nil {
			return false, r.err
		}
	}
	quota := len(s.legs) / max(members, 1)
	if rank < len(s.legs)%max(members, 1) {
		quota++
	}
	have := 0
	s.mu.Lock()
	for _, ln := range s.legs {
		if ln.gained && ln.losing.IsZero() {
			have++
		}
	}
	s.mu.Unlock()
	for i := range s.legs {
		ln := s.legs[(i+rank)%len(s.legs)] // not all begin with the same one
		if !ln.exclusive {
			continue
		}
		change, err := s.look(ctx, ln, quota-have)
		if have += change; err != nil {
			return false, err
		}
	}
	return have >= quota, nil
}

// look keeps a lane, takes it where this member has too few (room above 0), or gives it up where it has too many. It returns what that adds to what it has.
func (s *source) look(ctx context.Context, ln *leg, room int) (change int, err error) {
	s.lanes.Lock()
	defer s.lanes.Unlock()
	now := time.Now()
	s.mu.Lock()
	gained, losing, fresh := ln.gained, ln.losing, now.Sub(ln.renewed) < s.spec.AckWait/3
	if gained && losing.IsZero() {
		change = -1 // if it is lost now
	}
	switch {
	case s.dead != nil, !gained && (s.quiet || room <= 0):
		s.mu.Unlock()
		return 0, nil
	case gained && !ln.until.After(now), !losing.IsZero() && !losing.After(now): // its time is over, or that of what runs in it
		ln.lose(true)
		s.mu.Unlock()
		return change, ln.leave(ctx, true, false)
	case gained && room < 0 && losing.IsZero() && !s.quiet:
		ln.losing = now.Add(s.spec.AckWait)
		s.events = append(s.events, pubsub.LaneEvent{Lane: ln.lane, Gen: ln.gen, Kind: pubsub.LaneLosing, Deadline: ln.losing})
		wake(s.ready)
		s.mu.Unlock()
		return change, nil
	}
	s.mu.Unlock()
	if gained && fresh {
		return 0, nil
	}
	r, err := s.d.run(ctx, leaseScript, []string{ln.lease}, s.name, s.spec.AckWait.Milliseconds(), flag(!gained), s.mine)
	if err != nil {
		return 0, err
	}
	have := r.number() == 1
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.err != nil:
		return 0, r.err
	case gained && !have:
		ln.lose(true)
		return change, nil
	case gained:
		ln.until, ln.renewed = now.Add(s.spec.AckWait), now
	case have:
		ln.gain(now.Add(s.spec.AckWait))
		return 1, nil
	}
	return 0, nil
}

// renewHere keeps the leases of what waits here, and frees what has none any more: the engine knows that by the same clock.
func (s *source) renewHere(ctx context.Context) error {
	now := time.Now()
	var list []pubsub.Renewal
	s.mu.Lock()
	for f := s.oldest; f != nil; {
		next := f.next
		switch {
		case f.lease.IsZero():
		case !f.lease.After(now) && f.state == flightOut:
			f.overdue()
			s.wakeLegs()
		case f.leg.exclusive: // its lane's lease is kept
		case f.state == flightHere && f.lease.Sub(now) < s.spec.AckWait*2/3 && f.lease.After(now):
			list = append(list, pubsub.Renewal{Token: pubsub.Token{Ref: f}, Failed: f.failed})
		}
		f = next
	}
	s.mu.Unlock()
	if len(list) == 0 {
		return nil
	}
	return s.renew(ctx, list, make([]error, len(list)), flightHere)
}

// overdue takes away a flight whose lease the engine has not prolonged in time, so that it will not settle it any more. Where the lane is ours nobody else
// will get it, so it comes here again. mu is held.
func (f *flight) overdue() {
	s, again := f.leg.s, *f
	s.drop(f)
	if f.leg.exclusive {
		again.prev, again.next, again.state = nil, nil, flightOut
		again.deliveries++
		s.hold(&again)
		f.leg.back(&again)
	}
}

// deliverLater says that what waits in these partitions is to be delivered.
func (s *source) deliverLater() {
	for _, ln := range s.legs {
		if p := s.spec.From; p.Kind == pubsub.PlaceMain {
			s.d.deliverLater(streamKey(p.Topic, ln.lane), p.Topic, ln.lane, laterPoll)
		}
	}
}

// trim removes what is too old and settled by all groups.
func (s *source) trim(ctx context.Context) error {
	for _, ln := range s.legs {
		if ln.retention > 0 && s.spec.From.Kind == pubsub.PlaceMain {
			if _, err := s.d.run(ctx, trimScript, []string{ln.parts[0].key}, ln.retention.Milliseconds()); err != nil {
				return err
			}
		}
	}
	return nil
}
