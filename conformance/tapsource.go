package conformance

import (
	"context"
	"reflect"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

func (t *tap) OpenSource(ctx context.Context, s pubsub.SourceSpec) (pubsub.Source, error) {
	if t.m.spec != nil {
		t.m.mu.Lock()
		t.m.spec(&s)
		t.m.mu.Unlock()
	}
	below, err := t.Driver.OpenSource(ctx, s)
	if err != nil && t.m.opened != nil {
		if err = t.m.opened(t.Driver, s, err); err == nil {
			below, err = t.Driver.OpenSource(ctx, s)
		}
	}
	if err != nil {
		return nil, err
	}
	if t.m.wrapSource != nil {
		below = t.m.wrapSource(t.Driver, s, below)
	}
	return &tapSource{Source: below, m: t.m, spec: s, open: map[pubsub.Token]pubsub.Record{}, acked: map[pubsub.Token]bool{}}, nil
}

// A tapSource is a session of a mutant.
type tapSource struct {
	pubsub.Source
	m    *mutation
	spec pubsub.SourceSpec

	mu    sync.Mutex
	open  map[pubsub.Token]pubsub.Record // not settled
	acked map[pubsub.Token]bool          // settled by the mutant, behind the engine's back
	extra []pubsub.Record                // to be shown at the next Recv
	held  []pubsub.Record                // to be shown after the next of their key
}

// twin marks the token of a record that is shown twice. No driver gives it out: it counts upwards from 0.
const twin = uint64(1) << 63

func (s *tapSource) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	for s.m.recvBlocks != nil && s.m.recvBlocks(s) {
		select {
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	if n := s.takeExtra(buf); n > 0 {
		return n, nil, nil
	}
	if s.m.recvOne {
		buf = buf[:min(1, len(buf))]
	}
	for {
		n, events, err := s.Source.Recv(ctx, buf, maxBytes)
		kept := s.filter(ctx, buf[:n])
		if kept > 0 || n == 0 || len(events) > 0 || err != nil {
			s.m.handed.Add(int64(kept))
			return kept, events, err
		}
		if n := s.takeExtra(buf); n > 0 {
			return n, nil, nil
		}
	}
}

// sameRecord compares all that a mutation may change.
func sameRecord(a, b pubsub.Record) bool {
	return reflect.DeepEqual(a.Msg, b.Msg) && a.Topic == b.Topic && a.Deliveries == b.Deliveries && a.Failed == b.Failed && a.LeaseUntil.Equal(b.LeaseUntil)
}

// takeExtra shows what was put aside.
func (s *tapSource) takeExtra(buf []pubsub.Record) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := copy(buf, s.extra)
	s.extra = s.extra[n:]
	for i := range buf[:n] {
		s.open[buf[i].Token] = buf[i]
	}
	return n
}

// filter lets the mutation decide about each record. It returns how many are left in rs.
func (s *tapSource) filter(ctx context.Context, rs []pubsub.Record) int {
	var ack []pubsub.Settlement
	kept := rs[:0]
	s.m.mu.Lock()
	s.mu.Lock()
	for _, r := range rs {
		fate := recordKeep
		was := r
		if s.m.record != nil {
			fate = s.m.record(s, &r)
		}
		s.m.right(fate == recordKeep && (s.m.struck.Load() || sameRecord(r, was)), &s.m.shown)
		switch fate {
		case recordLose:
			ack = append(ack, pubsub.Settlement{Token: r.Token, As: pubsub.SettleAck})
			continue
		case recordAck:
			ack = append(ack, pubsub.Settlement{Token: r.Token, As: pubsub.SettleAck})
			s.acked[r.Token] = true
		case recordTwice:
			again := r
			again.Token.B |= twin
			s.extra = append(s.extra, again)
		case recordHold:
			s.held = append(s.held, r)
			continue
		}
		s.open[r.Token] = r
		kept = append(kept, r)
		if len(s.held) > 0 && s.held[0].Msg.Key == r.Msg.Key {
			s.extra, s.held = append(s.extra, s.held...), nil
		}
	}
	s.mu.Unlock()
	s.m.mu.Unlock()
	if len(ack) > 0 {
		_ = s.Source.Settle(context.WithoutCancel(ctx), ack, make([]error, len(ack)))
	}
	return len(kept)
}

func (s *tapSource) Settle(ctx context.Context, xs []pubsub.Settlement, errs []error) error {
	var pass []pubsub.Settlement
	var at []int
	s.m.mu.Lock()
	for i, x := range xs {
		s.mu.Lock()
		delete(s.open, x.Token)
		own := s.acked[x.Token] || x.Token.B&twin != 0
		delete(s.acked, x.Token)
		s.mu.Unlock()
		if own {
			continue
		}
		if s.m.settle != nil {
			was := x
			done := s.m.settle(s, &x)
			s.m.right(done && x == was, nil)
			if !done {
				continue
			}
		}
		pass, at = append(pass, x), append(at, i)
	}
	s.m.mu.Unlock()
	if len(pass) == 0 {
		return nil
	}
	below := make([]error, len(pass))
	err := s.Source.Settle(ctx, pass, below)
	for i, j := range at {
		if s.m.settled != nil {
			below[i] = s.m.settled(pass[i], below[i])
		}
		errs[j] = below[i]
	}
	return err
}

// ack settles on its own, beside whatever holds the locks.
func (s *tapSource) ack(list []pubsub.Settlement) {
	if len(list) > 0 {
		go func() { _ = s.Source.Settle(context.Background(), list, make([]error, len(list))) }()
	}
}

func (s *tapSource) Renew(ctx context.Context, rs []pubsub.Renewal, errs []error) error {
	var pass []pubsub.Renewal
	var at []int
	s.m.mu.Lock()
	for i, r := range rs {
		s.mu.Lock()
		own := s.acked[r.Token] || r.Token.B&twin != 0
		s.mu.Unlock()
		if own {
			continue
		}
		if s.m.renew != nil {
			was := r
			done := s.m.renew(&r)
			s.m.right(done && r == was, nil)
			if !done {
				continue
			}
		}
		pass, at = append(pass, r), append(at, i)
	}
	s.m.mu.Unlock()
	if len(pass) == 0 {
		return nil
	}
	below := make([]error, len(pass))
	err := s.Source.Renew(ctx, pass, below)
	for i, j := range at {
		errs[j] = below[i]
	}
	return err
}

func (s *tapSource) Quiesce(ctx context.Context) error {
	if s.m.quiesce != nil {
		return s.m.quiesce(ctx, s)
	}
	return s.Source.Quiesce(ctx)
}

func (s *tapSource) Close(ctx context.Context) error {
	if s.m.beforeClose != nil {
		s.m.beforeClose(ctx, s)
	}
	if s.m.closeSource != nil {
		return s.m.closeSource(ctx, s)
	}
	return s.Source.Close(ctx)
}

// RecordAs forwards what a source may leave out.
func (s *tapSource) RecordAs(t pubsub.Token, target any) bool {
	a, ok := s.Source.(pubsub.RecordAser)
	return ok && a.RecordAs(t, target)
}
