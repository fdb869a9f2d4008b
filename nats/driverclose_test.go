package nats_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A driver that is closed under its open sessions, as the suite's killed processes are, left their goroutines behind.
func TestDriverCloseEndsItsSessions(t *testing.T) {
	s := startServer(t, "default")
	for name, core := range map[string]bool{"jetstream": false, "core": true} {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			cfg, err := nats.ParseURL(s.address(nil))
			if err != nil {
				t.Fatal(err)
			}
			cfg.Core = core
			ctx := t.Context()
			d, err := cfg.Driver(ctx)
			if err != nil {
				t.Fatal(err)
			}
			spec := pubsub.SourceSpec{From: pubsub.Place{Topic: "t", Group: "g"}, MaxInFlight: 8, AckWait: time.Minute, Manage: pubsub.Create}
			if _, err := d.OpenSource(ctx, spec); err != nil {
				t.Fatal(err)
			}
			if _, err := d.OpenProducer(ctx, pubsub.ProducerSpec{MaxPending: 8}, func([]pubsub.Result) {}); err != nil {
				t.Fatal(err)
			}
			closing, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			if err := d.Close(closing); err != nil {
				t.Error(err)
			}
		})
	}
}
