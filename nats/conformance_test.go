package nats_test

import (
	"cmp"
	"context"
	"net/url"
	"os"
	"testing"
	"time"

	client "github.com/nats-io/nats.go"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
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
			return nats.Open(ctx, s.address(parameters), nil)
		},
		Recovery:      6 * time.Second, // a lane that nobody has is somebody's after 2 s, who waits for the predecessor's leases of 2 s; leaders are elected in as many more
		Variant:       variant,
		ServerVersion: s.Version(),
		ClientVersion: client.Version,
		KnownFailing: map[string]string{
			"Groups/TopicDisagrees":            "the topics of one stream share its retention, bytes and replicas, so that a second one with others is refused: it needs a Broker with another ?stream=",
			"DeadLetters/BrowsingTakesNothing": "the same: it wants a topic of 50 kB among others of the stream",
		},
	}
	h.Intruders, h.Secrets = adaptertest.Intruders(t, s.Params, s.opens)
	if s.Ours() {
		h.Kill, h.Start = s.Kill, s.Restart
		h.Faults = s.Faults(conformance.HalfOpen) // the others are for TestSoak
	}
	if len(s.Nodes()) > 1 {
		h.Replicas = s.leadership
	}
	conformance.Run(t, h)
}
