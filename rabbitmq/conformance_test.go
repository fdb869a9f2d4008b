package rabbitmq_test

import (
	"cmp"
	"context"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/rabbitmq"
)

// settles is how long a quorum queue has to be there before its only node is killed: one that is younger comes back empty.
const settles = 2 * time.Second

// TestConformance runs the suite on the variant that OMNIBUS_VARIANT names, see containers.Variants.
func TestConformance(t *testing.T) {
	variant := cmp.Or(os.Getenv("OMNIBUS_VARIANT"), "default")
	s := startServer(t, variant)
	h := conformance.Harness{
		Driver:         s.driver,
		DeleteTopic:    s.deleteTopic,
		ForeignPublish: s.foreignPublish,
		OpenURL: func(ctx context.Context, parameters url.Values) (*pubsub.Broker, error) {
			return rabbitmq.Open(ctx, s.address(parameters), nil)
		},
		Recovery:      4 * time.Second,
		Variant:       variant,
		ServerVersion: s.Version(),
		ClientVersion: clientVersion,
	}
	h.Intruders, h.Secrets = s.intruders(t)
	if s.Ours() {
		h.Kill, h.Start = s.kill, s.Restart
		h.Faults = s.Faults(conformance.HalfOpen) // the others are for TestSoak
	}
	conformance.Run(t, h)
}

// kill ends the broker when what was made for the property is old enough to survive it.
func (s *server) kill(ctx context.Context) error {
	select {
	case <-time.After(settles):
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.Kill(ctx)
}
