package kafka_test

import (
	"cmp"
	"context"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/internal/child"
	"github.com/omnibus-go/omnibus/pubsub"
)

func TestMain(m *testing.M) {
	child.Main(mortals, func(told context.Context, f fate) error { return f.live(told) })
	conformance.Member(dial)
	// that is the client's where containers ask the broker for its version; the adapter's own counts nothing, see TestMetricsAreOff
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick"))
}

// TestSoak runs fault schedules on the variant that OMNIBUS_VARIANT names.
func TestSoak(t *testing.T) {
	variant := cmp.Or(os.Getenv("OMNIBUS_VARIANT"), "default")
	s := startServer(t, variant)
	h := conformance.Harness{
		Driver:  func(ctx context.Context) (pubsub.Driver, error) { return dial(ctx, s.address(t, nil)) },
		Address: s.address(t, nil), Faults: s.Faults(), Variant: variant, ServerVersion: s.Version(), Recovery: 8 * time.Second,
	}
	if s.Ours() {
		h.Kill, h.Start = s.Kill, s.Restart
	}
	conformance.Soak(t, h)
}
