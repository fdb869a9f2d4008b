package conformance_test

import (
	"context"
	"sync"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A lossyBus is a fileBus that is almost right: once a connection has dropped with something in hand, it loses every 1000th message that it is
// about to show.
type lossyBus struct {
	fileBus

	lossMu  sync.Mutex
	dropped bool
	shown   int
}

type lossyDriver struct {
	*fileDriver
	b *lossyBus
}

func (d lossyDriver) OpenSource(ctx context.Context, s pubsub.SourceSpec) (pubsub.Source, error) {
	src, err := d.fileDriver.OpenSource(ctx, s)
	if err != nil {
		return nil, err
	}
	return &lossySource{src.(*fileSource), d.b}, nil
}

type lossySource struct {
	*fileSource
	b *lossyBus
}

func (s *lossySource) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	n, events, err := s.fileSource.Recv(ctx, buf, maxBytes)
	s.b.lossMu.Lock()
	defer s.b.lossMu.Unlock()
	kept := buf[:0]
	for _, r := range buf[:n] {
		if s.b.dropped {
			if s.b.shown++; s.b.shown%1000 == 0 {
				_ = s.Settle(ctx, []pubsub.Settlement{{Token: r.Token, As: pubsub.SettleAck}}, make([]error, 1))
				continue
			}
		}
		kept = append(kept, r)
	}
	return len(kept), events, err
}

func (s *lossySource) Close(ctx context.Context) error {
	s.d.Lock()
	held := len(s.out) > 0
	s.d.Unlock()
	s.b.lossMu.Lock()
	s.b.dropped = s.b.dropped || held
	s.b.lossMu.Unlock()
	return s.fileSource.Close(ctx)
}
