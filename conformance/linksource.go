package conformance

import (
	"context"
	"fmt"

	"github.com/omnibus-go/omnibus/pubsub"
)

func (l *link) OpenSource(ctx context.Context, s pubsub.SourceSpec) (pubsub.Source, error) {
	if err := l.opens(ctx); err != nil {
		return nil, err
	}
	below, err := l.Driver.OpenSource(ctx, s)
	if err != nil {
		return nil, err
	}
	src := &linkSource{Source: below, l: l, main: s.From.Kind == pubsub.PlaceMain, held: map[pubsub.Token]int64{}}
	src.broken.ctx, src.broken.cancel = context.WithCancel(context.Background())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions++
	l.sources[src] = struct{}{}
	return src, nil
}

// A linkSource is a session of a link.
type linkSource struct {
	pubsub.Source
	l      *link
	main   bool // it reads a topic
	broken struct {
		ctx    context.Context
		cancel context.CancelFunc
	}
	held map[pubsub.Token]int64 // payload bytes of what is not settled; guarded by l.mu
}

// lost says why the session cannot be used any more.
func (s *linkSource) lost() error {
	switch {
	case s.l.isDead():
		return errKilled
	case s.broken.ctx.Err() != nil:
		return errReset
	}
	return nil
}

// usable is lost, once the broker answers.
func (s *linkSource) usable(ctx context.Context) error {
	if err := s.l.answers(ctx); err != nil {
		return err
	}
	return s.lost()
}

func (s *linkSource) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	if err := s.lost(); err != nil {
		return 0, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.broken.ctx, cancel)()
	if err := s.l.answers(ctx); err != nil {
		if lost := s.lost(); lost != nil {
			return 0, nil, lost
		}
		return 0, nil, err
	}
	n, events, err := s.Source.Recv(ctx, buf, maxBytes)
	_ = s.l.answers(ctx)               // where ctx ends first, what has come is handed over all the same
	if lost := s.lost(); lost != nil { // what came with it goes back when the session closes
		return 0, nil, lost
	}
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	for i := range buf[:n] {
		r := &buf[i]
		size := int64(len(r.Msg.Payload))
		s.held[r.Token] = size
		s.l.fetched++
		s.l.held++
		if s.main {
			s.l.unmoved++
		}
		s.l.bytes += size
		s.l.timed = s.l.timed || !r.LeaseUntil.IsZero()
		if s.l.onRecord != nil {
			s.l.onRecord(r)
		}
	}
	s.l.peak = max(s.l.peak, s.l.held)
	return n, events, err
}

// free takes a record off the count, and says how many it was. l.mu is held.
func (s *linkSource) free(t pubsub.Token) (n int) {
	size, ok := s.held[t]
	if !ok {
		return 0
	}
	delete(s.held, t)
	s.l.held--
	s.l.bytes -= size
	return 1
}

// answered says that the broker has answered the settlement of n records, or that they have no session any more. l.mu is held.
func (s *linkSource) answered(n int) {
	if s.main {
		s.l.unmoved -= n
	}
}

func (s *linkSource) Settle(ctx context.Context, ss []pubsub.Settlement, errs []error) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	s.l.mu.Lock()
	n := 0
	for i := range ss {
		n += s.free(ss[i].Token)
	}
	s.l.mu.Unlock()
	err := s.Source.Settle(ctx, ss, errs)
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.answered(n)
	return err
}

func (s *linkSource) Renew(ctx context.Context, rs []pubsub.Renewal, errs []error) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	s.l.mu.Lock()
	swallow := s.l.noRenew
	s.l.mu.Unlock()
	if swallow {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.Source.Renew(ctx, rs, errs)
}

func (s *linkSource) Sync(ctx context.Context) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	return s.Source.Sync(ctx)
}

func (s *linkSource) Quiesce(ctx context.Context) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	return s.Source.Quiesce(ctx)
}

func (s *linkSource) LaneDone(ctx context.Context, losing pubsub.LaneEvent) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	return s.Source.LaneDone(ctx, losing)
}

func (s *linkSource) Close(ctx context.Context) error {
	s.broken.cancel()
	s.l.mu.Lock()
	delete(s.l.sources, s)
	for t := range s.held {
		s.answered(s.free(t))
	}
	dead := s.l.dead
	s.l.mu.Unlock()
	if dead {
		return nil
	}
	if err := s.Source.Close(ctx); err != nil {
		return fmt.Errorf("closing a source: %w", err)
	}
	return nil
}

// RecordAs forwards what a source may leave out.
func (s *linkSource) RecordAs(t pubsub.Token, target any) bool {
	a, ok := s.Source.(pubsub.RecordAser)
	return ok && a.RecordAs(t, target)
}
