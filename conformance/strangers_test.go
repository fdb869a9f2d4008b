package conformance_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/pubsub"
)

// The suite judges an adapter that it does not know, written from the documentation alone. Another one is in examples/adapter.
func TestChannels(t *testing.T) {
	t.Setenv("OMNIBUS_REPORTS", t.TempDir()) // which nobody keeps
	conformance.Run(t, conformance.Harness{
		Fresh: func() conformance.Harness {
			b := newChannelBus()
			return conformance.Harness{Driver: func(context.Context) (pubsub.Driver, error) { return b.driver(), nil }}
		},
		Wrap: func(t conformance.T, f func()) { synctest.Test(t.(*testing.T), func(*testing.T) { f() }) },
	})
}
