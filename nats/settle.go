package nats

import (
	"context"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// find returns what a token names, if it is still ours.
func (s *source) find(t pubsub.Token, now time.Time) *flight {
	f, ok := t.Ref.(*flight)
	if !ok || f.leg.s != s || f.state != flightOut || !f.lease.After(now) {
		return nil
	}
	return f
}

// onItsWay is how long a message may have been on its way. The server counts a lease from when it sends, and fences nothing: of the next holder's
// run it would take a late hand-back for an early one, and start a third.
func onItsWay(ackWait time.Duration) time.Duration { return min(ackWait/10, time.Second) }

// Settle implements pubsub.Source. An ack is sent and forgotten: a lost one brings its message back.
func (s *source) Settle(ctx context.Context, list []pubsub.Settlement, errs []error) error {
	now := time.Now()
	var later []copyOf
	s.mu.Lock()
	if s.dead != nil {
		defer s.mu.Unlock()
		return s.dead
	}
	for i := range list {
		f := s.find(list[i].Token, now)
		if f == nil {
			errs[i] = errStale
			continue
		}
		var err error
		switch list[i].As {
		case pubsub.SettleAck:
			err = s.ack(f)
		case pubsub.SettleRelease:
			if s.spec.From.Kind == pubsub.PlaceQuarantine {
				later = append(later, copyOf{f: f, at: i})
				continue
			}
			if f.leg.live {
				s.failed[f.info.seq] = list[i].Failed
			}
			err = s.nc.Publish(f.msg.Reply, bodyNak)
		case pubsub.SettleRetryIn:
			if f.leg.live { // it comes to nobody else
				s.failed[f.info.seq] = list[i].Failed
				err = s.nc.Publish(f.msg.Reply, nakIn(list[i].Delay))
				break
			}
			later = append(later, copyOf{f: f, due: now.Add(list[i].Delay), failed: list[i].Failed, at: i})
			continue // settled when its copy is
		}
		if err != nil {
			defer s.mu.Unlock()
			return err
		}
		s.drop(f)
	}
	s.ask()
	s.mu.Unlock()
	if len(later) > 0 {
		return s.move(ctx, later, errs)
	}
	return nil
}

// Renew implements pubsub.Source. It returns when the server has read the renewals: a lease that it does not know of is none.
func (s *source) Renew(ctx context.Context, list []pubsub.Renewal, errs []error) error {
	now := time.Now()
	s.mu.Lock()
	for i := range list {
		f := s.find(list[i].Token, now)
		if f == nil {
			errs[i] = errStale
		} else if err := s.nc.Publish(f.msg.Reply, bodyRenew); err != nil {
			s.mu.Unlock()
			return err
		}
	}
	s.mu.Unlock()
	if err := flush(ctx, s.nc); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range list {
		if f := s.find(list[i].Token, now); f != nil {
			f.lease = now.Add(s.spec.AckWait)
		}
	}
	return s.dead
}

// ack sends an ack, and remembers it. mu is held.
func (s *source) ack(f *flight) error {
	s.acks[s.acked%len(s.acks)] = sentAck{f.msg.Reply, f.leg.consumerName, f.info.seq, f.info.stored}
	s.acked++
	f.leg.lastAck = f.msg.Reply
	return s.nc.Publish(f.msg.Reply, bodyAck)
}

// Sync implements pubsub.Source: one acknowledged ack for each consumer, behind all others of it. The server knows no order between consumers.
func (s *source) Sync(ctx context.Context) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	for _, ln := range s.legs {
		s.mu.Lock()
		last, dead := ln.lastAck, s.dead
		s.mu.Unlock()
		if dead != nil {
			return dead
		}
		if last == "" {
			continue
		}
		if _, err := s.nc.RequestWithContext(ctx, last, bodyAck); err != nil {
			return err
		}
		s.mu.Lock()
		if ln.lastAck == last {
			ln.lastAck = ""
		}
		s.mu.Unlock()
	}
	return flush(ctx, s.nc)
}
