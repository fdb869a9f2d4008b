package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/pubsub"
)

// all are the layers in their right order, with two that stand for package security.
func all() []pubsub.Middleware {
	return layers(
		pubsub.Middleware{Name: "sign"},
		pubsub.Middleware{Name: "encrypt"},
		middleware.Compress(0),
		middleware.Correlate(),
		middleware.Validate(map[string]func(*pubsub.Message) error{"": func(*pubsub.Message) error { return nil }}),
		middleware.Retry(pubsub.Policy{}),
		middleware.Poison(middleware.PoisonOptions{}),
		middleware.Breaker(middleware.BreakerOptions{}),
		middleware.Dedup(middleware.DedupOptions{}),
		middleware.RateLimit(1e6, 1000),
		middleware.ConcurrencyLimit(100),
		middleware.Log(slog.New(slog.DiscardHandler)),
		middleware.Timeout(time.Minute),
	)
}

func TestRightOrderIsAccepted(t *testing.T) {
	b, err := memory.NewServer(memory.Config{}).Open(t.Context(), opts(all()...))
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
}

// Of each two layers the order of the package comment is right; that the other one is refused, with the reason, or does no harm, is
// what this table says.
func TestHarmfulOrdersAreRefused(t *testing.T) {
	harmful := map[string]string{ // the inner one: those that must stand before it
		"compress":    "sign encrypt",
		"correlate":   "sign encrypt",
		"validate":    "sign encrypt compress",
		"poison":      "retry",
		"breaker":     "sign encrypt retry poison",
		"dedup":       "sign encrypt breaker",
		"rate-limit":  "breaker dedup",
		"concurrency": "breaker dedup rate-limit",
		"log":         "correlate rate-limit concurrency",
		"timeout":     "retry poison breaker dedup rate-limit concurrency",
	}
	ls := all()
	for i, outer := range ls {
		for _, inner := range ls[i+1:] {
			refused := false
			for name := range strings.FieldsSeq(harmful[inner.Name]) {
				refused = refused || name == outer.Name
			}
			b, err := memory.NewServer(memory.Config{}).Open(t.Context(), opts(inner, outer))
			switch {
			case refused && (!errors.Is(err, pubsub.ErrInvalid) || !strings.Contains(err.Error(), inner.Why) || inner.Why == ""):
				t.Errorf("%s before %s: %v, want a refusal that says why", inner.Name, outer.Name, err)
			case !refused && err != nil:
				t.Errorf("%s before %s: %v", inner.Name, outer.Name, err)
			}
			if err == nil {
				b.Close()
			}
		}
	}
}

func TestOptionsAreRefused(t *testing.T) {
	yes := func(error) bool { return true }
	for want, layer := range map[string]pubsub.Middleware{
		"MaxAttempts":       middleware.Retry(pubsub.Policy{MaxAttempts: -7}),
		"rules[1].When":     middleware.Retry(pubsub.Policy{}, pubsub.Rule{When: yes}, pubsub.Rule{}),
		"rules[0]: ":        middleware.Retry(pubsub.Policy{}, pubsub.Rule{When: yes, Retry: pubsub.Policy{Factor: 0.5}}),
		"Times is 1":        middleware.Poison(middleware.PoisonOptions{Times: 1}),
		"Times is -1":       middleware.Poison(middleware.PoisonOptions{Times: -1}),
		"Messages is":       middleware.Poison(middleware.PoisonOptions{Messages: -1}),
		"Window is -1ns":    middleware.Breaker(middleware.BreakerOptions{Window: -1}),
		"Min is":            middleware.Breaker(middleware.BreakerOptions{Min: -1}),
		"Ratio is 1.5":      middleware.Breaker(middleware.BreakerOptions{Ratio: 1.5}),
		"Ratio is NaN":      middleware.Breaker(middleware.BreakerOptions{Ratio: math.NaN()}),
		"Open is":           middleware.Breaker(middleware.BreakerOptions{Open: -1}),
		"Probes is":         middleware.Breaker(middleware.BreakerOptions{Probes: -1}),
		"Keys is":           middleware.Breaker(middleware.BreakerOptions{Keys: -1}),
		"Keys needs":        middleware.Breaker(middleware.BreakerOptions{Keys: 1}),
		"Window is -1s":     middleware.Dedup(middleware.DedupOptions{Window: -time.Second}),
		"Lease is":          middleware.Dedup(middleware.DedupOptions{Lease: -1}),
		"Again is":          middleware.Dedup(middleware.DedupOptions{Again: -1}),
		"the rate is 0":     middleware.RateLimit(0, 1),
		"the rate is NaN":   middleware.RateLimit(math.NaN(), 1),
		"the rate is +Inf":  middleware.RateLimit(math.Inf(1), 1),
		"the burst is 0":    middleware.RateLimit(1, 0),
		"the limit is 0;":   middleware.ConcurrencyLimit(0),
		"the limit is 0s":   middleware.Timeout(0),
		"no function":       middleware.Validate(nil),
		`"a" is nil`:        middleware.Validate(map[string]func(*pubsub.Message) error{"a": nil}),
		"the logger is nil": middleware.Log(nil),
		"From is":           middleware.Compress(-1),
		"Max is":            middleware.CompressWith(middleware.CompressOptions{Max: -1}),
	} {
		_, err := memory.NewServer(memory.Config{}).Open(t.Context(), opts(layer))
		if !errors.Is(err, pubsub.ErrInvalid) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), layer.Name) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// A Broker with every layer, under load in each form: what is published is handled once, and ends.
func TestAllLayersTogether(t *testing.T) {
	const messages = 300
	ls := all()[2:] // not those that only stand for others
	b := memory.New(opts(ls...))
	defer b.Close()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var handled tally
	var wait sync.WaitGroup
	wait.Add(3 * messages)
	handle := func(d *pubsub.Delivery) error {
		if n := handled.add(d.Group + " " + d.ID); n == 1 && len(d.ID)%2 == 0 {
			return pubsub.RetryAfter(time.Millisecond, errFailed)
		} else if n == 1 && d.ID == "m-111" {
			panic("once")
		}
		wait.Done()
		return nil
	}
	if _, err := b.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "one", Concurrency: 8},
		func(_ context.Context, d *pubsub.Delivery) error { return handle(d) }); err != nil {
		t.Fatal(err)
	}
	if _, err := b.SubscribeBatch(ctx, pubsub.Subscription{Topic: "t", Group: "batch", Order: pubsub.OrderNone, Concurrency: 2},
		pubsub.Batch{Max: 10, Wait: time.Millisecond}, func(_ context.Context, ds []*pubsub.Delivery) error {
			errs := make([]error, len(ds))
			for i, d := range ds {
				if d.ID != "m-111" {
					errs[i] = handle(d)
				} else {
					handled.add(d.Group + " " + d.ID)
					wait.Done()
				}
			}
			return &pubsub.BatchError{Errs: errs}
		}); err != nil {
		t.Fatal(err)
	}
	loop, err := b.Receive(ctx, pubsub.Subscription{Topic: "t", Group: "pull"})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lease, err := range loop {
			if err != nil {
				t.Error(err)
				return
			}
			var outcome error
			if lease.ID != "m-111" {
				outcome = handle(lease.Delivery)
			} else {
				handled.add(lease.Group + " " + lease.ID)
				wait.Done()
			}
			if err := lease.Settle(context.WithoutCancel(ctx), outcome); err != nil {
				t.Error(err)
			}
		}
	}()
	for i := range messages {
		m := message(fmt.Sprint("m-", i))
		m.Key, m.Payload = fmt.Sprint(i%20), []byte(strings.Repeat(m.ID, 400))
		if err := b.Publish(ctx, "t", m); err != nil {
			t.Fatal(err)
		}
	}
	wait.Wait()
	stop()
	<-ended
}
