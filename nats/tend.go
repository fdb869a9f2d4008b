package nats

import (
	"context"
	"errors"
	"strconv"
	"time"
)

// tend does what has its time: it renews what lies here, frees what has no lease any more, shows pins and looks for lost requests. It ends
// with its session, also where nobody closes that one because its driver was closed.
func (s *source) tend(life context.Context) {
	defer close(s.ended)
	tick := time.NewTicker(min(max(s.spec.AckWait/5, 20*time.Millisecond), 500*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.kick:
		case <-life.Done():
			return
		}
		look, alive := s.round(time.Now())
		if !alive {
			return
		}
		for _, ln := range look {
			ctx, cancel := context.WithTimeout(life, pinCheck)
			err := ln.look(ctx)
			cancel()
			if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
				s.die(err)
			}
		}
	}
}

// round returns the legs that are to be looked at, until the session is dead.
func (s *source) round(now time.Time) (look []*leg, alive bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead != nil {
		return nil, false
	}
	for f := s.oldest; f != nil; {
		next := f.next
		switch {
		case f.state == flightHere && now.After(f.lease.Add(-s.spec.AckWait*2/3)) && now.Before(f.lease):
			if s.nc.IsConnected() && s.nc.Publish(f.msg.Reply, bodyRenew) == nil {
				f.lease = now.Add(s.spec.AckWait)
			}
		case f.state == flightOut && !f.lease.After(now):
			s.drop(f)
		}
		f = next
	}
	s.balance(now)
	for _, ln := range s.legs {
		if ln.asked > 0 && len(s.legs) <= s.spec.MaxInFlight && now.Sub(ln.heard) > 3*heartbeat {
			ln.fail(errSilent)
		}
		if !ln.exclusive {
			continue
		}
		if ln.waits != waitsForNothing || ln.pin == "" && now.Sub(ln.checked) > pinCheck {
			look = append(look, ln)
		}
		if ln.pin != "" && now.Sub(ln.shown) > pinCheck { // a request that nothing fits into: the server answers, and keeps the pin
			ln.shown = now
			_ = ln.pull(pullRequest{Batch: 1, MaxBytes: 1, NoWait: true}, "pin-"+strconv.Itoa(ln.era))
		}
	}
	s.ask()
	return look, true
}
