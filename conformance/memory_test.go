package conformance_test

import (
	"context"
	"net/url"
	"testing"
	"testing/synctest"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// onMemory is the harness of the memory broker: each property gets a server of its own, in a bubble of virtual time.
func onMemory() conformance.Harness {
	return conformance.Harness{
		Fresh: func() conformance.Harness {
			s := memory.NewServer(memory.Config{})
			return conformance.Harness{
				Driver: func(context.Context) (pubsub.Driver, error) { return s.Driver(), nil },
				Kill:   func(context.Context) error { s.Crash(); return nil },
				Start:  func(context.Context) error { s.Restart(); return nil },
				OpenURL: func(ctx context.Context, parameters url.Values) (*pubsub.Broker, error) {
					return memory.Opener().Open(ctx, "mem://?"+parameters.Encode(), nil)
				},
				DeleteTopic: func(_ context.Context, topic string) error { s.DeleteTopic(topic); return nil },
			}
		},
		Wrap: func(t conformance.T, f func()) { synctest.Test(t.(*testing.T), func(*testing.T) { f() }) },
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	conformance.Run(t, onMemory())
}

func TestSoak(t *testing.T) { conformance.Soak(t, onMemory()) }

func TestMutants(t *testing.T) {
	t.Parallel()
	conformance.RunMutants(t, onNetwork())
}
