package redisstreams_test

import (
	"cmp"
	"context"
	"net/url"
	"os"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/redisstreams"
)

// TestConformance runs the suite on the variant that OMNIBUS_VARIANT names, see containers.Variants.
func TestConformance(t *testing.T) {
	variant := cmp.Or(os.Getenv("OMNIBUS_VARIANT"), "default")
	s := startServer(t, variant)
	h := conformance.Harness{
		Driver:         s.driver,
		DeleteTopic:    s.deleteTopic,
		ForeignPublish: s.foreignPublish,
		OpenURL: func(ctx context.Context, parameters url.Values) (*pubsub.Broker, error) {
			return redisstreams.Open(ctx, s.address(parameters), nil)
		},
		Recovery:      recovery(variant),
		Variant:       variant,
		ServerVersion: s.Version(),
		ClientVersion: redis.Version(),
	}
	h.Intruders, h.Secrets = adaptertest.Intruders(t, s.Params, s.opens)
	if s.Ours() {
		h.Kill, h.Start = s.Kill, s.Restart
		h.Faults = s.Faults(conformance.HalfOpen) // the others are for TestSoak
	}
	if s.replicated() {
		h.Replicas = s.leadership
	}
	conformance.Run(t, h)
}
