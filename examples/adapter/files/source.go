package files

import (
	"context"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A source is a member of a group. It has one lane, which it keeps until it dies.
type source struct {
	d     *driver
	spec  pubsub.SourceSpec
	q     *queue
	held  map[uint64]int // numbers of entries, by token
	token uint64         // the latest
	stir  chan struct{}  // takes one: look again
	told  bool           // of its lane
	quiet bool           // it gets nothing more
	dead  error
}

func (d *driver) OpenSource(_ context.Context, s pubsub.SourceSpec) (pubsub.Source, error) {
	src := &source{d: d, spec: s, held: map[uint64]int{}, stir: make(chan struct{}, 1)}
	place, m := s.From, s.Manage
	if m == pubsub.Off {
		m = pubsub.Verify // a file is opened anyway
	}
	return src, d.do(func() (err error) {
		if _, err = d.bus.ensure(pubsub.Place{Topic: place.Topic}, 0, m); err != nil {
			return err
		}
		if place.Group == pubsub.Broadcast { // a queue of its own
			place.Group, m = "+"+s.Member, pubsub.Create
		}
		if src.q, err = d.bus.ensure(place, s.AckWait, m); err == nil {
			src.q.members = append(src.q.members, src)
		}
		return err
	})
}

func (s *source) look() {
	select {
	case s.stir <- struct{}{}:
	default:
	}
}

// die gives back what the member holds.
func (s *source) die(err error) {
	s.dead = err
	for _, n := range s.held {
		s.q.entries[n].owner = nil
	}
	s.q.members = slices.DeleteFunc(s.q.members, func(m *source) bool { return m == s })
	if s.spec.From.Group == pubsub.Broadcast {
		delete(s.d.bus.queues, s.q.path)
		_ = os.Remove(s.q.path) // what is left of it costs room, and is read by nobody
	}
	s.q.wake()
	s.look()
}

func (s *source) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (n int, events []pubsub.LaneEvent, err error) {
	for {
		wait := time.Hour
		s.d.bus.mu.Lock()
		if err = s.dead; err == nil && ctx.Err() == nil {
			if !s.told {
				s.told, events = true, []pubsub.LaneEvent{{Kind: pubsub.LaneGained}}
			}
			if !s.quiet {
				n, wait = s.take(buf, maxBytes)
			}
		}
		s.d.bus.mu.Unlock()
		if n > 0 || events != nil || err != nil {
			return n, events, err
		}
		select {
		case <-s.stir:
		case <-time.After(wait):
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		}
	}
}

// take fills buf, the oldest first, and says when there may be more.
func (s *source) take(buf []pubsub.Record, maxBytes int64) (got int, wait time.Duration) {
	wait = time.Hour
	now := time.Now()
	for _, n := range slices.Sorted(maps.Keys(s.q.entries)) {
		if got == len(buf) || len(s.held) == s.spec.MaxInFlight || got > 0 && maxBytes <= 0 {
			break
		}
		e := s.q.entries[n]
		if e.due.After(now) {
			wait = min(wait, e.due.Sub(now))
		} else if e.owner == nil {
			s.token++
			e.owner, s.held[s.token] = s, n
			buf[got] = pubsub.Record{Msg: e.msg, Topic: s.spec.From.Topic, Token: pubsub.Token{A: s.token}, Failed: e.failed}
			maxBytes -= e.msg.Size()
			got++
		}
	}
	return got, wait
}

func (s *source) Settle(_ context.Context, list []pubsub.Settlement, errs []error) error {
	return s.do(func() error {
		for i, x := range list {
			n, ok := s.held[x.Token.A]
			if !ok {
				errs[i] = codeError(pubsub.ErrLeaseLost)
				continue
			}
			if x.As == pubsub.SettleAck {
				if errs[i] = s.q.write(change{Ack: n + 1}); errs[i] == nil {
					delete(s.q.entries, n)
					delete(s.held, x.Token.A)
				}
				continue
			}
			e := s.q.entries[n]
			e.owner, e.failed, e.due = nil, x.Failed, time.Now().Add(x.Delay)
			delete(s.held, x.Token.A)
		}
		s.q.wake()
		return nil
	})
}

// do calls f with the lock, in a session that lives.
func (s *source) do(f func() error) error {
	s.d.bus.mu.Lock()
	defer s.d.bus.mu.Unlock()
	if s.dead != nil {
		return s.dead
	}
	return f()
}

func (s *source) Quiesce(context.Context) error {
	return s.do(func() error { s.quiet = true; return nil })
}

func (s *source) Close(context.Context) error {
	return s.do(func() error { s.die(codeError(pubsub.ErrUnavailable)); return nil })
}

// A lease ends with its connection, a settlement is written at once, and a lane is never taken away: there is nothing to do here.
func (s *source) Renew(context.Context, []pubsub.Renewal, []error) error { return nil }
func (s *source) LaneDone(context.Context, pubsub.LaneEvent) error       { return nil }
func (s *source) Sync(context.Context) error                             { return s.do(func() error { return nil }) }
