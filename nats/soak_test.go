package nats_test

import (
	"cmp"
	"context"
	"os"
	"testing"
	"time"

	client "github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/internal/child"
	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
)

func TestMain(m *testing.M) {
	adaptertest.Main(dial, func(d pubsub.Driver) error {
		var nc *client.Conn
		d.As(&nc)
		return nc.FlushTimeout(time.Minute)
	})
	child.Main(rotators, func(told context.Context, r rotator) error { return r.run(told) })
	conformance.Member(dial)
	goleak.VerifyTestMain(m)
}

func dial(ctx context.Context, address string) (pubsub.Driver, error) {
	cfg, err := nats.ParseURL(address)
	if err != nil {
		return nil, err
	}
	return cfg.Driver(ctx)
}

// TestSoak runs fault schedules on the variant that OMNIBUS_VARIANT names.
func TestSoak(t *testing.T) {
	variant := cmp.Or(os.Getenv("OMNIBUS_VARIANT"), "default")
	s := startServer(t, variant)
	h := conformance.Harness{
		Driver: s.driver, Address: s.address(nil), Faults: s.Faults(), Variant: variant, ServerVersion: s.Version(),
	}
	if variant == "cluster" {
		h.Recovery = 8 * time.Second // leaders are elected
	}
	if s.Ours() {
		h.Kill, h.Start = s.Kill, s.Restart
	}
	conformance.Soak(t, h)
}
