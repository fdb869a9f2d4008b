package middleware_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/pubsub"
)

// benched are the layers as a success passes them, with what one may allocate.
func benched() []struct {
	name   string
	layer  pubsub.Middleware
	allocs float64
} {
	valid := func(*pubsub.Message) error { return nil }
	byType := func(d *pubsub.Delivery) string { return d.Type }
	return []struct {
		name   string
		layer  pubsub.Middleware
		allocs float64
	}{
		{"none", pubsub.Middleware{}, 0},
		{"Compress", middleware.Compress(0), 0},
		{"Correlate", middleware.Correlate(), 1},
		{"Validate", middleware.Validate(map[string]func(*pubsub.Message) error{"t": valid}), 0},
		{"Retry", middleware.Retry(pubsub.Policy{}), 0},
		{"Poison", middleware.Poison(middleware.PoisonOptions{}), 0},
		{"Breaker", middleware.Breaker(middleware.BreakerOptions{}), 1},
		{"Breaker/Key", middleware.Breaker(middleware.BreakerOptions{Key: byType}), 1},
		{"Dedup", middleware.Dedup(middleware.DedupOptions{Store: middleware.NewDedupStore(1000)}), 0},
		{"RateLimit", middleware.RateLimit(1e12, 1e9), 0},
		{"ConcurrencyLimit", middleware.ConcurrencyLimit(1), 0},
		{"Log", middleware.Log(slog.New(slog.DiscardHandler)), 0},
		{"Timeout", middleware.Timeout(time.Minute), 4},
	}
}

// ids are enough for a store of 1000 to have forgotten the first when the last is there.
func ids() []string {
	all := make([]string, 1<<13)
	for i := range all {
		all[i] = fmt.Sprintf("message-%06d", i)
	}
	return all
}

func ok(context.Context, *pubsub.Delivery) error { return nil }

// BenchmarkSuccess is what a layer adds to a message that is handled. The row "none" is the call itself.
func BenchmarkSuccess(b *testing.B) {
	all := ids()
	for _, l := range benched() {
		b.Run(l.name, func(b *testing.B) {
			h := wrap(ok, l.layer)
			d := &pubsub.Delivery{Topic: "t", Group: "g", Message: pubsub.Message{Type: "t", Payload: make([]byte, 256)}}
			ctx := context.Background()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				d.ID = all[i%len(all)]
				if err := h(ctx, d); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFailure is what it adds to one that fails.
func BenchmarkFailure(b *testing.B) {
	all := ids()
	for _, l := range benched() {
		b.Run(l.name, func(b *testing.B) {
			h := wrap(func(context.Context, *pubsub.Delivery) error { return errFailed }, l.layer)
			d := &pubsub.Delivery{Topic: "t", Group: "g", Message: pubsub.Message{Type: "t", Payload: make([]byte, 256)}}
			ctx := context.Background()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				d.ID = all[i%len(all)]
				if err := h(ctx, d); err == nil {
					b.Fatal("no error")
				}
			}
		})
	}
}

// BenchmarkPublish is what a layer adds to a publish: 256 bytes, and 4 KiB for those that compress.
func BenchmarkPublish(b *testing.B) {
	small, large := make([]byte, 256), []byte(strings.Repeat(`{"id":"o-1","cents":1999}`, 164))
	caused := context.Background()
	keep := func(ctx context.Context, _ *pubsub.Delivery) error {
		caused = ctx //nolint:fatcontext // once
		return nil
	}
	_ = wrap(keep, middleware.Correlate())(caused, &pubsub.Delivery{Message: message("cause")})
	for _, l := range []struct {
		name    string
		layer   pubsub.Middleware
		ctx     context.Context
		payload []byte
	}{
		{"Compress/256B", middleware.Compress(0), context.Background(), small},
		{"Compress/4KiB", middleware.Compress(0), context.Background(), large},
		{"Correlate/no-cause", middleware.Correlate(), context.Background(), small},
		{"Correlate/cause", middleware.Correlate(), caused, small},
		{"Validate", middleware.Validate(map[string]func(*pubsub.Message) error{"": func(*pubsub.Message) error { return nil }}), context.Background(), small},
	} {
		b.Run(l.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m := pubsub.Message{Payload: l.payload}
				if err := l.layer.Outgoing(l.ctx, "t", &m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDecompress is 4 KiB on their way in.
func BenchmarkDecompress(b *testing.B) {
	packed := gzipped(b, []byte(strings.Repeat(`{"id":"o-1","cents":1999}`, 164)))
	h := wrap(ok, middleware.Compress(0))
	b.ReportAllocs()
	for b.Loop() {
		d := &pubsub.Delivery{Message: pubsub.Message{Payload: packed, Headers: pubsub.Headers{{Name: "content-encoding", Value: "gzip"}}}}
		if err := h(context.Background(), d); err != nil {
			b.Fatal(err)
		}
	}
}

// A success allocates no more than the page of its layer says.
func TestAllocations(t *testing.T) {
	all := ids()
	for _, l := range benched() {
		h := wrap(ok, l.layer)
		d := &pubsub.Delivery{Topic: "t", Group: "g", Message: pubsub.Message{Type: "t"}}
		i := 0
		run := func() {
			d.ID = all[i%len(all)]
			i++
			if err := h(context.Background(), d); err != nil {
				t.Fatal(err)
			}
		}
		for range 3000 {
			run() // what grows has grown
		}
		if got := testing.AllocsPerRun(2000, run); got > l.allocs {
			t.Errorf("%s: %v allocations, at most %v", l.name, got, l.allocs)
		}
	}
}
