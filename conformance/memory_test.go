package conformance_test

import (
	"context"
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
				Driver:      func(context.Context) (pubsub.Driver, error) { return s.Driver(), nil },
				Kill:        func(context.Context) error { s.Crash(); return nil },
				Start:       func(context.Context) error { s.Restart(); return nil },
				DeleteTopic: func(_ context.Context, topic string) error { s.DeleteTopic(topic); return nil },
			}
		},
		Wrap: func(t conformance.T, f func()) { synctest.Test(t.(*testing.T), func(*testing.T) { f() }) },
	}
}

func TestConformance(t *testing.T) {
	h := onMemory()
	h.KnownFailing = map[string]string{
		"DeadLetters/Largest": "the engine does not shed what makes a dead letter larger than MaxMessage: it is kept and State says Blocked, but it is not stored",
	}
	conformance.Run(t, h)
}

func TestMutants(t *testing.T) {
	conformance.RunMutants(t, onMemory())
}
