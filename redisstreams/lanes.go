package redisstreams

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// The members of a group tell the server that they are there. Of the partitions of an exclusive group each member is to have those that follow from its
// place among all of them, and gives up the others. A partition has a lease at the server; whoever dies has it until that ends.

// tend does what has its time: leases of partitions and of what lies here, what is too old.
func (s *source) tend() {
	tick := time.NewTicker(s.tick())
	defer tick.Stop()
	trim := time.NewTicker(trimTurn)
	defer trim.Stop()
	for {
		var err error
		ctx, cancel := context.WithTimeout(s.life, answerWithin)
		select {
		case <-tick.C:
			err = s.round(ctx)
		case <-trim.C:
			err = s.trim(ctx)
		case <-s.life.Done():
		}
		cancel()
		switch {
		case s.life.Err() != nil:
			return
		case errors.Is(err, context.DeadlineExceeded):
			s.die(errDown)
		case err != nil:
			s.die(err)
		}
	}
}

const trimTurn = 10 * time.Second

func (s *source) tick() time.Duration {
	return min(max(s.spec.AckWait/6, 20*time.Millisecond), 500*time.Millisecond)
}

// round looks once.
func (s *source) round(ctx context.Context) error {
	var members []string
	if s.balanced() {
		ttl := s.spec.AckWait + 2*s.tick()
		r, err := s.d.run(ctx, membersScript, []string{groupKey("members", s.spec.From, 0)}, s.spec.Member, ttl.Milliseconds())
		if err != nil {
			return err
		}
		r.each(func() { members = append(members, string(r.text())) })
		if r.err != nil {
			return r.err
		}
		slices.Sort(members)
	}
	for i, ln := range s.legs {
		if ln.exclusive {
			if err := s.look(ctx, ln, len(members) == 0 || members[i%len(members)] == s.spec.Member); err != nil {
				return err
			}
		}
	}
	return s.renewHere(ctx)
}

// look keeps a lane, takes it, or gives it up.
func (s *source) look(ctx context.Context, ln *leg, wanted bool) error {
	s.lanes.Lock()
	defer s.lanes.Unlock()
	now := time.Now()
	s.mu.Lock()
	gained, losing, fresh := ln.gained, ln.losing, now.Sub(ln.renewed) < s.spec.AckWait/3
	switch {
	case s.dead != nil, !gained && (s.quiet || !wanted):
		s.mu.Unlock()
		return nil
	case gained && !ln.until.After(now), !losing.IsZero() && !losing.After(now): // its time is over, or that of what runs in it
		ln.lose(true)
		s.mu.Unlock()
		return ln.leave(ctx, true)
	case gained && !wanted && losing.IsZero() && !s.quiet:
		ln.losing = now.Add(s.spec.AckWait)
		s.events = append(s.events, pubsub.LaneEvent{Lane: ln.lane, Gen: ln.gen, Kind: pubsub.LaneLosing, Deadline: ln.losing})
		wake(s.ready)
	}
	s.mu.Unlock()
	if gained && fresh {
		return nil
	}
	r, err := s.d.run(ctx, leaseScript, []string{ln.lease}, s.name, s.spec.AckWait.Milliseconds(), flag(!gained), s.mine)
	if err != nil {
		return err
	}
	have := r.number() == 1
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.err != nil:
		return r.err
	case gained && !have:
		ln.lose(true)
	case gained:
		ln.until, ln.renewed = now.Add(s.spec.AckWait), now
	case have:
		ln.gain(now.Add(s.spec.AckWait))
	}
	return nil
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
			s.drop(f)
			s.wakeLegs()
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
