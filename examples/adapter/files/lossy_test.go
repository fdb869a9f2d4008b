package files_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/pubsub"
)

// An adapter that is almost right is found out: once a connection has dropped with something in hand, it loses every 1000th message that it is about to show.
func TestLossyAdapter(t *testing.T) {
	t.Parallel()
	const notices = "Faults/Schedules"
	h := harness(t)
	fresh := h.Fresh
	h.Fresh = func() conformance.Harness {
		h, l := fresh(), new(loss)
		sound := h.Driver
		h.Driver = func(ctx context.Context) (pubsub.Driver, error) {
			d, err := sound(ctx)
			if err != nil {
				return nil, err
			}
			return lossyDriver{d.(browsable), l}, nil
		}
		return h
	}
	h.Select = func(p conformance.Property) bool { return strings.HasPrefix(p.Name, "Faults/") }
	h.Wrap = func(_ conformance.T, f func()) { synctest.Test(t, func(*testing.T) { f() }) }
	rep, err := conformance.Check(t.Context(), h, nil)
	if err != nil {
		t.Fatal(err)
	}
	var noticed []string
	for _, p := range rep.Properties {
		if p.Status != conformance.Failed {
			continue
		}
		noticed = append(noticed, p.Name)
		t.Logf("%s: %s", p.Name, p.Reason)
		if !strings.HasPrefix(p.Reason, "g lost ") || p.Lost == 0 {
			t.Errorf("%s complains, and not of losses: %s", p.Name, p.Reason)
		}
	}
	if !slices.Contains(noticed, notices) {
		t.Errorf("%s does not notice; %v do", notices, noticed)
	}
	if rep.OK() {
		t.Error("the report on an adapter that loses messages is OK")
	}
}

// A loss is what all connections to one folder share.
type loss struct {
	mu      sync.Mutex
	dropped bool
	shown   int
}

// now says whether a message is to be lost.
func (l *loss) now() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.dropped {
		return false
	}
	l.shown++
	return l.shown%1000 == 0
}

type browsable interface {
	pubsub.Driver
	pubsub.Browser
}

type lossyDriver struct {
	browsable
	l *loss
}

func (d lossyDriver) OpenSource(ctx context.Context, s pubsub.SourceSpec) (pubsub.Source, error) {
	src, err := d.browsable.OpenSource(ctx, s)
	if err != nil {
		return nil, err
	}
	return &lossySource{Source: src, l: d.l}, nil
}

type lossySource struct {
	pubsub.Source
	l    *loss
	held int // l.mu guards it
}

func (s *lossySource) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	n, events, err := s.Source.Recv(ctx, buf, maxBytes)
	kept := buf[:0]
	for _, r := range buf[:n] {
		if s.l.now() {
			_ = s.Source.Settle(ctx, []pubsub.Settlement{{Token: r.Token, As: pubsub.SettleAck}}, make([]error, 1)) // gone
			continue
		}
		kept = append(kept, r)
	}
	s.holds(len(kept))
	return len(kept), events, err
}

func (s *lossySource) Settle(ctx context.Context, list []pubsub.Settlement, errs []error) error {
	err := s.Source.Settle(ctx, list, errs)
	if err == nil {
		s.holds(-len(list))
	}
	return err
}

func (s *lossySource) holds(more int) {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.held += more
}

func (s *lossySource) Close(ctx context.Context) error {
	s.l.mu.Lock()
	s.l.dropped = s.l.dropped || s.held > 0
	s.l.mu.Unlock()
	return s.Source.Close(ctx)
}
