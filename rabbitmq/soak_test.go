package rabbitmq_test

import (
	"cmp"
	"context"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/rabbitmq"
)

const clientVersion = "1.16.0" // the client does not export its own

func TestMain(m *testing.M) {
	conformance.Member(dial)
	goleak.VerifyTestMain(m)
}

func dial(ctx context.Context, address string) (pubsub.Driver, error) {
	cfg, err := rabbitmq.ParseURL(address)
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
		Driver: s.driver, Address: s.address(nil), Faults: s.Faults(), Variant: variant, ServerVersion: s.Version(), Recovery: 5 * time.Second,
	}
	if s.Ours() {
		h.Kill, h.Start = s.kill, s.Restart
	}
	conformance.Soak(t, h)
}
