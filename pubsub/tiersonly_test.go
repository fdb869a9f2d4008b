package pubsub_test

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A tiersOnly driver is memory that delays nothing and keeps no attempts: retries go through its tiers.
type tiersOnly struct {
	pubsub.Driver
	pubsub.Browser
	pubsub.Lagger

	mu     sync.Mutex
	tiers  []time.Duration // that copies went to
	refuse bool            // to take copies
	deaf   bool            // acks of the topic do not reach the broker
	wait   time.Duration   // LeaseMax, if it is not 0
	called string          // what this broker calls the topic of its messages, if it is not ""
}

func newTiersOnly(s *memory.Server) *tiersOnly {
	d := s.Driver()
	return &tiersOnly{Driver: d, Browser: d.(pubsub.Browser), Lagger: d.(pubsub.Lagger)}
}

func (d *tiersOnly) Capabilities() pubsub.Capabilities {
	c := d.Driver.Capabilities()
	c.RetryIn, c.Tiers, c.StoresAttempts = 0, true, pubsub.StoresNone
	if d.wait > 0 {
		c.LeaseMax = d.wait
	}
	return c
}

// errGone is what a broken connection says.
var errGone = errors.New("the connection is gone")

func (d *tiersOnly) Classify(err error) (pubsub.Code, bool) {
	if errors.Is(err, errGone) {
		return pubsub.ErrUnavailable, false
	}
	return d.Driver.Classify(err)
}

func (d *tiersOnly) OpenProducer(ctx context.Context, s pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	p, err := d.Driver.OpenProducer(ctx, s, report)
	return &tiersProducer{p, d, report}, err
}

func (d *tiersOnly) OpenSource(ctx context.Context, s pubsub.SourceSpec) (pubsub.Source, error) {
	src, err := d.Driver.OpenSource(ctx, s)
	if err != nil {
		return nil, err
	}
	return &tiersSource{src, d, s}, nil
}

type tiersProducer struct {
	pubsub.Producer
	d      *tiersOnly
	report func([]pubsub.Result)
}

func (p *tiersProducer) Send(ctx context.Context, run []pubsub.Out) (int, error) {
	for i := range run {
		p.d.mu.Lock()
		refused := p.d.refuse && run[i].To.Tier > 0
		if run[i].To.Tier > 0 && !refused {
			p.d.tiers = append(p.d.tiers, run[i].To.Tier)
		}
		p.d.mu.Unlock()
		if refused {
			p.report([]pubsub.Result{{Seq: run[i].Seq, Fate: pubsub.FateRefused, Err: errors.New("no room for copies")}})
		} else if _, err := p.Producer.Send(ctx, run[i:i+1]); err != nil {
			return i, err
		}
	}
	return len(run), nil
}

type tiersSource struct {
	pubsub.Source
	d    *tiersOnly
	spec pubsub.SourceSpec
}

func (s *tiersSource) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	n, events, err := s.Source.Recv(ctx, buf, maxBytes)
	for i := range buf[:n] {
		buf[i].Failed = 0
		if s.d.called != "" && s.spec.From.Kind == pubsub.PlaceMain {
			buf[i].Topic = s.d.called
		}
	}
	return n, events, err
}

func (s *tiersSource) Settle(ctx context.Context, list []pubsub.Settlement, errs []error) error {
	s.d.mu.Lock()
	deaf := s.d.deaf && s.spec.From.Kind == pubsub.PlaceMain
	s.d.deaf = s.d.deaf && !deaf
	s.d.mu.Unlock()
	if deaf {
		return errGone
	}
	for _, x := range list {
		if x.As == pubsub.SettleRetryIn {
			panic("this driver delays nothing")
		}
	}
	return s.Source.Settle(ctx, list, errs)
}
