package conformance_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A logDriver is memory with what a partitioned log has: no count is kept of anything, and nothing is delayed, so retries go through tiers. Of
// a tier a member stores how far it has settled it without a gap, and no more: what lies beyond a gap comes again after a crash. (Of a topic a
// log has to store more, since what is held there for a retry would bring back all that came after it.)
type logDriver struct {
	pubsub.Driver
	pubsub.Browser
	pubsub.Lagger
	pubsub.Seeker
}

func newLogDriver(d pubsub.Driver) pubsub.Driver {
	return logDriver{d, d.(pubsub.Browser), d.(pubsub.Lagger), d.(pubsub.Seeker)}
}

func (d logDriver) Capabilities() pubsub.Capabilities {
	c := d.Driver.Capabilities()
	c.Deliveries, c.StoresAttempts = false, pubsub.StoresNone
	c.RetryIn, c.Tiers, c.RetryLate = 0, true, 2*time.Second
	c.Schedule, c.Priority, c.Dedup, c.Waiting = false, false, 0, pubsub.WaitingNone
	return c
}

func (d logDriver) OpenSource(ctx context.Context, spec pubsub.SourceSpec) (pubsub.Source, error) {
	src, err := d.Driver.OpenSource(ctx, spec)
	if err != nil {
		return nil, err
	}
	return &logSource{Source: src, tier: spec.From.Tier > 0, lanes: map[int32]*prefix{}}, nil
}

// A logSource of a tier acks at the broker only what has no gap before it.
type logSource struct {
	pubsub.Source
	tier bool

	mu    sync.Mutex
	lanes map[int32]*prefix
}

// A prefix is what was delivered of a lane and is not acked at the broker, in the order of the log.
type prefix struct {
	open  []pubsub.Token
	acked map[pubsub.Token]bool
}

func (s *logSource) lane(id int32) *prefix {
	if s.lanes[id] == nil {
		s.lanes[id] = &prefix{acked: map[pubsub.Token]bool{}}
	}
	return s.lanes[id]
}

func (s *logSource) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	n, events, err := s.Source.Recv(ctx, buf, maxBytes)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ev := range events {
		if ev.Kind != pubsub.LaneLosing {
			delete(s.lanes, ev.Lane)
		}
	}
	for i := range buf[:n] {
		r := &buf[i]
		r.Deliveries, r.Failed = 0, 0
		if !s.tier {
			continue
		}
		p := s.lane(r.Token.Lane)
		at, _ := slices.BinarySearchFunc(p.open, r.Token.A, func(t pubsub.Token, off uint64) int { return int(t.A) - int(off) })
		p.open = slices.Insert(p.open, at, r.Token)
	}
	return n, events, err
}

func (s *logSource) Settle(ctx context.Context, list []pubsub.Settlement, errs []error) error {
	s.mu.Lock()
	var pass []pubsub.Settlement
	touched := map[*prefix]bool{}
	for _, x := range list {
		p := s.lane(x.Token.Lane)
		switch x.As {
		case pubsub.SettleAck:
			if !s.tier {
				pass = append(pass, x)
				continue
			}
			p.acked[x.Token], touched[p] = true, true
		case pubsub.SettleRelease: // the member reads on from there
			p.open, touched[p] = slices.DeleteFunc(p.open, func(t pubsub.Token) bool { return t == x.Token }), true
			pass = append(pass, x)
		default:
			panic("a log delays nothing")
		}
	}
	for p := range touched {
		for len(p.open) > 0 && p.acked[p.open[0]] {
			pass = append(pass, pubsub.Settlement{Token: p.open[0], As: pubsub.SettleAck})
			delete(p.acked, p.open[0])
			p.open = p.open[1:]
		}
	}
	s.mu.Unlock()
	below := make([]error, len(pass))
	err := s.Source.Settle(ctx, pass, below)
	for i, x := range list {
		if at := slices.Index(pass, x); at >= 0 {
			errs[i] = below[at]
		}
	}
	return err
}

func TestLogShape(t *testing.T) {
	t.Parallel()
	rep := checkIn(t, changed(newLogDriver))
	for _, p := range rep.Properties {
		if p.Status == conformance.Failed {
			t.Errorf("%s fails: %s", p.Name, p.Reason)
		}
	}
}
