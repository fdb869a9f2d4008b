package redisstreams

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/pubsub"
)

// find returns what a token names, if it is still ours. mu is held.
func (s *source) find(t pubsub.Token, now time.Time, state flightState) *flight {
	f, ok := t.Ref.(*flight)
	if !ok || f.leg.s != s || f.state != state || f.leg.exclusive && (!f.leg.gained || f.gen != f.leg.gen) {
		return nil
	}
	if !f.lease.IsZero() && !f.lease.After(now) {
		return nil
	}
	return f
}

// A step is what is to be done with a flight.
type step struct {
	f      *flight
	what   string
	count  int64
	delay  int64 // in milliseconds
	failed int32 // as it is stored then
	at     int   // in the caller's list
}

// Settle implements pubsub.Source. An ack of a lease that is young is sent without a question. Any other settlement asks at the server whether the message is
// still ours.
func (s *source) Settle(ctx context.Context, list []pubsub.Settlement, errs []error) error {
	now := time.Now()
	young := map[*part][]*flight{}
	asks := map[*part][]step{}
	s.mu.Lock()
	if s.dead != nil {
		defer s.mu.Unlock()
		return s.dead
	}
	for i := range list {
		st := &list[i]
		f := s.find(st.Token, now, flightOut)
		if f == nil {
			errs[i] = errStale
			continue
		}
		if f.leg.live {
			f.leg.settleLive(f, st, now)
			continue
		}
		x := step{f: f, at: i, failed: st.Failed}
		switch {
		case st.As == pubsub.SettleAck && f.lease.Sub(now) > s.spec.AckWait/3:
			young[f.part] = append(young[f.part], f)
			continue
		case st.As == pubsub.SettleAck:
			if x.what = "ack"; f.part.once {
				x.what = "del"
			}
		case st.As == pubsub.SettleRelease && f.leg.exclusive && f.failed == st.Failed:
			f.leg.back(f)
			continue
		case st.As == pubsub.SettleRelease && f.leg.exclusive:
			x.what, x.count = "renew", f.count(st.Failed, f.deliveries)
		default: // a delay or a hand-back is no delivery that counts, unless it follows a failure
			deliveries := f.deliveries
			if st.As == pubsub.SettleRelease || st.Failed == f.failed {
				deliveries--
			}
			x.what, x.count, x.delay = "wait", f.count(st.Failed, deliveries), millis(max(st.Delay, 0))
		}
		asks[f.part] = append(asks[f.part], x)
	}
	s.mu.Unlock()
	if err := s.ack(ctx, young); err != nil {
		return err
	}
	for p, steps := range asks {
		lost, err := s.ask(ctx, p, steps)
		if err != nil {
			return err
		}
		s.settled(ctx, steps, lost, errs)
	}
	return nil
}

// ack sends acks, one command for each stream.
func (s *source) ack(ctx context.Context, young map[*part][]*flight) error {
	if len(young) == 0 {
		return nil
	}
	pipe := s.d.client.Pipeline()
	for p, flights := range young {
		args := make([]any, 3, 3+len(flights))
		args[0], args[1], args[2] = "XACK", &p.key, &s.spec.From.Group
		for _, f := range flights {
			args = append(args, f.id.String())
		}
		_ = pipe.Process(ctx, redis.NewIntCmd(ctx, args...))
		if p.once {
			args = append([]any{"XDEL", &p.key}, args[3:]...)
			_ = pipe.Process(ctx, redis.NewIntCmd(ctx, args...))
		}
	}
	err := await(ctx, func() error { _, err := pipe.Exec(ctx); return err })
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, flights := range young {
		for _, f := range flights {
			if err == nil && f.state == flightOut {
				s.drop(f)
			}
		}
	}
	s.wakeLegs()
	return err
}

// ask carries steps out that the server is to check, all of one part, and returns the ids of those that are lost.
func (s *source) ask(ctx context.Context, p *part, steps []step) (lost map[entryID]bool, err error) {
	ln := steps[0].f.leg
	lost = map[entryID]bool{}
	for from := 0; from < len(steps); from += mostSteps {
		some := steps[from:min(from+mostSteps, len(steps))]
		low, high := some[0].f.id, some[0].f.id
		for i := range some {
			if id := some[i].f.id; id.less(low) {
				low = id
			} else if high.less(id) {
				high = id
			}
		}
		args := append(make([]any, 0, 5+4*len(some)), s.spec.From.Group, s.name, flag(ln.exclusive), low.String(), high.String())
		for i := range some {
			args = append(args, some[i].what, some[i].f.id.String(), some[i].count, some[i].delay)
		}
		r, err := s.d.run(ctx, settleScript, []string{p.key, p.due, ln.lease}, args...)
		if err != nil {
			return nil, err
		}
		r.each(func() {
			id, _ := parseID(r.text())
			lost[id] = true
		})
		if r.err != nil {
			return nil, r.err
		}
	}
	return lost, nil
}

// millis is no less than d, which may be the longest there is.
func millis(d time.Duration) int64 {
	return int64(d/time.Millisecond) + min(int64(d%time.Millisecond), 1)
}

// mostSteps keeps what a script hands on within what it can.
const mostSteps = 1000

// settled notes what the server has done.
func (s *source) settled(ctx context.Context, steps []step, lost map[entryID]bool, errs []error) {
	var soonest time.Duration = -1
	var ln *leg
	s.mu.Lock()
	for i := range steps {
		x := &steps[i]
		if lost[x.f.id] {
			errs[x.at] = errStale
		}
		if x.f.state != flightOut {
			continue
		}
		if x.what == "renew" && !lost[x.f.id] { // given back, to be delivered here again
			x.f.failed = x.failed
			x.f.leg.back(x.f)
			continue
		}
		if d := time.Duration(x.delay) * time.Millisecond; x.what == "wait" && !lost[x.f.id] && (soonest < 0 || d < soonest) {
			soonest, ln = d, x.f.leg
		}
		s.drop(x.f)
	}
	s.wakeLegs()
	var blocked *wire
	if ln != nil {
		if at := time.Now().Add(soonest); at.Before(ln.claimAt) {
			ln.claimAt = at
			if ln.reading != nil && !s.quiet {
				blocked = ln.wire
			}
		}
	}
	s.mu.Unlock()
	if blocked != nil {
		ctx, cancel := context.WithTimeout(ctx, answerWithin)
		defer cancel()
		_ = await(ctx, func() error { return s.d.unblock(ctx, blocked) }) // else it looks a little later
	}
}

// back puts a flight of an exclusive lane where it was. mu is held.
func (ln *leg) back(f *flight) {
	s := ln.s
	if s.quiet || !ln.losing.IsZero() { // it goes back with all the others
		s.drop(f)
		return
	}
	f.state = flightHere
	i := 0
	for i < len(ln.buf) && (ln.buf[i].part != f.part || ln.buf[i].id.less(f.id)) {
		i++
	}
	ln.buf = append(ln.buf, nil)
	copy(ln.buf[i+1:], ln.buf[i:])
	ln.buf[i] = f
	wake(s.ready)
}

// Renew implements pubsub.Source.
func (s *source) Renew(ctx context.Context, list []pubsub.Renewal, errs []error) error {
	return s.renew(ctx, list, errs, flightOut)
}

func (s *source) renew(ctx context.Context, list []pubsub.Renewal, errs []error, state flightState) error {
	now := time.Now()
	asks := map[*part][]step{}
	lanes := map[*leg]bool{}
	s.mu.Lock()
	for i := range list {
		f := s.find(list[i].Token, now, state)
		switch {
		case f == nil:
			errs[i] = errStale
			continue
		case f.leg.live:
			continue
		}
		x := step{f: f, what: "renew", at: i, failed: list[i].Failed}
		if f.failed != x.failed {
			x.count = f.count(x.failed, f.deliveries)
		}
		if f.leg.exclusive {
			lanes[f.leg] = true
			if x.count == 0 { // the lane's lease is what counts
				continue
			}
		}
		asks[f.part] = append(asks[f.part], x)
	}
	dead := s.dead
	s.mu.Unlock()
	if dead != nil {
		return dead
	}
	for p, steps := range asks {
		lost, err := s.ask(ctx, p, steps)
		if err != nil {
			return err
		}
		s.mu.Lock()
		for i := range steps {
			x := &steps[i]
			if lost[x.f.id] {
				errs[x.at] = errStale
				if x.f.state == flightHere { // it comes again, to whoever has it
					x.f.lease = now
				}
				continue
			}
			x.f.failed = x.failed
			if !x.f.lease.IsZero() {
				x.f.lease = now.Add(s.spec.AckWait)
			}
		}
		s.mu.Unlock()
	}
	for ln := range lanes {
		if err := s.keep(ctx, ln, list, errs); err != nil {
			return err
		}
	}
	return nil
}

// keep prolongs the lease of a lane, on which those of its messages depend.
func (s *source) keep(ctx context.Context, ln *leg, list []pubsub.Renewal, errs []error) error {
	now := time.Now()
	r, err := s.d.run(ctx, leaseScript, []string{ln.lease}, s.name, s.spec.AckWait.Milliseconds(), "0", s.mine)
	if err != nil {
		return err
	}
	have := r.number() == 1
	s.mu.Lock()
	defer s.mu.Unlock()
	if have && r.err == nil {
		if ln.gained {
			ln.until, ln.renewed = now.Add(s.spec.AckWait), now
			for i := range list {
				if f, ok := list[i].Token.Ref.(*flight); ok && f.leg == ln && errs[i] == nil {
					f.lease = ln.until
				}
			}
		}
		return nil
	}
	for i := range list {
		if f, ok := list[i].Token.Ref.(*flight); ok && f.leg == ln {
			errs[i] = errStale
		}
	}
	ln.lose(true)
	return r.err
}
