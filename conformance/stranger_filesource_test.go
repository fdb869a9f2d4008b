package conformance_test

import (
	"context"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A fileSource is a member of a group.
type fileSource struct {
	d     *fileDriver
	spec  pubsub.SourceSpec
	q     *fileQueue
	out   map[uint64]int // what it holds, by token
	next  uint64
	ready chan struct{} // one token: look again
	told  bool          // of its lane
	quiet bool
	pause bool
	dead  error
}

func (d *fileDriver) OpenSource(_ context.Context, s pubsub.SourceSpec) (pubsub.Source, error) {
	src := &fileSource{d: d, spec: s, out: map[uint64]int{}, ready: make(chan struct{}, 1)}
	place, m, want := s.From, s.Manage, fileLine{AckWait: s.AckWait, Exclusive: s.Order.Exclusive()}
	if m == pubsub.Off {
		m = pubsub.Verify
	}
	return src, d.do(func() (err error) {
		if _, err = d.ensure(pubsub.Place{Topic: place.Topic}, want, m); err != nil {
			return err
		}
		if place.Group == pubsub.Broadcast { // a group of its own
			place.Group, m = "+"+s.Member, pubsub.Create
		}
		if src.q, err = d.ensure(place, want, m); err == nil {
			src.q.members = append(src.q.members, src)
		}
		return err
	})
}

func (s *fileSource) look() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// die gives back what a member holds.
func (s *fileSource) die(err error) {
	if s.dead != nil {
		return
	}
	s.dead = err
	for _, n := range s.out {
		s.q.entries[n].owner = nil
	}
	clear(s.out)
	s.q.members = slices.DeleteFunc(s.q.members, func(m *fileSource) bool { return m == s })
	if s.spec.From.Group == pubsub.Broadcast {
		delete(s.d.queues, s.q.path)
		_ = os.Remove(s.q.path)
	}
	s.q.wake()
	s.look()
}

func (s *fileSource) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (n int, events []pubsub.LaneEvent, err error) {
	for {
		wait := time.Hour
		s.d.Lock()
		if err = s.dead; err == nil && (!s.q.first.Exclusive || s.q.members[0] == s) {
			if !s.told {
				s.told, events = true, []pubsub.LaneEvent{{Kind: pubsub.LaneGained}}
			}
			if !s.quiet && !s.pause && ctx.Err() == nil {
				n, wait = s.take(buf, maxBytes)
			}
		}
		s.d.Unlock()
		if n > 0 || events != nil || err != nil {
			return n, events, err
		}
		select {
		case <-s.ready:
		case <-time.After(wait):
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		}
	}
}

// take fills buf, and says when there may be more.
func (s *fileSource) take(buf []pubsub.Record, maxBytes int64) (got int, wait time.Duration) {
	wait = time.Hour
	now := time.Now()
	for _, n := range slices.Sorted(maps.Keys(s.q.entries)) {
		if got == len(buf) || len(s.out) == s.spec.MaxInFlight || got > 0 && maxBytes <= 0 {
			break
		}
		e := s.q.entries[n]
		if e.due.After(now) {
			wait = min(wait, e.due.Sub(now))
		} else if e.owner == nil {
			s.next++
			e.owner, s.out[s.next] = s, n
			buf[got] = pubsub.Record{Msg: e.msg, Topic: s.spec.From.Topic, Token: pubsub.Token{A: s.next}, Failed: e.failed}
			maxBytes -= e.msg.Size()
			got++
		}
	}
	return got, wait
}

func (s *fileSource) Settle(_ context.Context, list []pubsub.Settlement, errs []error) error {
	return s.do(func() error {
		for i, x := range list {
			n, ok := s.out[x.Token.A]
			if !ok {
				errs[i] = fileError(pubsub.ErrLeaseLost)
				continue
			}
			delete(s.out, x.Token.A)
			e := s.q.entries[n]
			e.owner, e.failed, e.due = nil, x.Failed, time.Now().Add(x.Delay)
			if x.As != pubsub.SettleAck {
				continue
			}
			delete(s.q.entries, n)
			if err := s.q.write(fileLine{Ack: n + 1}); err != nil {
				return err
			}
		}
		s.q.wake()
		return nil
	})
}

// do calls f with the lock, in a session that lives.
func (s *fileSource) do(f func() error) error {
	s.d.Lock()
	defer s.d.Unlock()
	if s.dead != nil {
		return s.dead
	}
	defer s.look()
	return f()
}

func (s *fileSource) set(flag *bool, on bool) error {
	return s.do(func() error { *flag = on; return nil })
}

// Leases end with their session: there is nothing to renew.
func (s *fileSource) Renew(context.Context, []pubsub.Renewal, []error) error { return nil }
func (s *fileSource) LaneDone(context.Context, pubsub.LaneEvent) error       { return nil }
func (s *fileSource) Pause(_ int32, on bool)                                 { _ = s.set(&s.pause, on) }
func (s *fileSource) Quiesce(context.Context) error                          { return s.set(&s.quiet, true) }
func (s *fileSource) Sync(context.Context) error                             { return s.do(func() error { return nil }) }

func (s *fileSource) Close(context.Context) error {
	return s.do(func() error { s.die(fileError(pubsub.ErrUnavailable)); return nil })
}
