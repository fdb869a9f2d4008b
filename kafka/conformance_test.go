package kafka_test

import (
	"cmp"
	"context"
	"net/url"
	"os"
	"runtime/debug"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

// TestConformance runs the suite on the variant that OMNIBUS_VARIANT names, see containers.Variants.
func TestConformance(t *testing.T) {
	variant := cmp.Or(os.Getenv("OMNIBUS_VARIANT"), "default")
	s := startServer(t, variant)
	h := conformance.Harness{
		Driver:         func(ctx context.Context) (pubsub.Driver, error) { return dial(ctx, s.address(t, nil)) },
		DeleteTopic:    s.deleteTopic(t),
		ForeignPublish: s.foreignPublish(t),
		OpenURL: func(ctx context.Context, parameters url.Values) (*pubsub.Broker, error) {
			return kafka.Open(ctx, s.address(t, parameters), nil)
		},
		Recovery:      8 * time.Second, // the broker comes back after 4 s, and its groups when they have their offsets
		Variant:       variant,
		ServerVersion: s.Version(),
		ClientVersion: clientVersion(),
	}
	h.Intruders, h.Secrets = adaptertest.Intruders(t, s.Params, s.opens(t))
	if s.Ours() {
		h.Kill, h.Start = s.Kill, s.Restart
		h.Faults = s.Faults(conformance.HalfOpen) // the others are for TestSoak
	}
	if len(s.Nodes()) > 1 {
		h.Replicas = s.leadership(t)
	}
	conformance.Run(t, h)
}

// clientVersion is sarama's.
func clientVersion() string {
	info, _ := debug.ReadBuildInfo()
	for _, m := range info.Deps {
		if m.Path == "github.com/IBM/sarama" {
			return m.Version
		}
	}
	return ""
}
