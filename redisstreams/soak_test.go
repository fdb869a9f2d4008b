package redisstreams_test

import (
	"cmp"
	"context"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/redisstreams"
)

func TestMain(m *testing.M) {
	adaptertest.Main(dial, nil)
	conformance.Member(dial)
	// A pool that could not connect asks each second whether it is closed, and ends a second later than what closed it.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

func dial(ctx context.Context, address string) (pubsub.Driver, error) {
	cfg, err := redisstreams.ParseURL(address)
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
		Driver: s.driver, Address: s.address(nil), Faults: s.Faults(), Variant: variant, ServerVersion: s.Version(), Recovery: recovery(variant),
	}
	if s.Ours() {
		h.Kill, h.Start = s.Kill, s.Restart
	}
	conformance.Soak(t, h)
}

// recovery is how long it takes until somebody has the partitions of a member that died, with the leases that the suite has then; and until a replica has
// taken over.
func recovery(variant string) time.Duration {
	if variant == "cluster" || variant == "sentinel" {
		return 10 * time.Second
	}
	return 4 * time.Second
}
