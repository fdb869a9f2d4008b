package files_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/examples/adapter/files"
	"github.com/omnibus-go/omnibus/pubsub"
)

// What it takes to prove an adapter. A folder is cheap: each property gets one of its own, and runs in virtual time.
func TestConformance(t *testing.T) {
	t.Setenv("OMNIBUS_REPORTS", t.TempDir()) // an adapter's report is kept; this one's would stand among those of the brokers
	conformance.Run(t, harness(t))
}

func harness(t *testing.T) conformance.Harness {
	t.Helper()
	return conformance.Harness{
		Fresh: func() conformance.Harness {
			bus := files.NewBus(t.TempDir())
			return conformance.Harness{
				Driver: func(context.Context) (pubsub.Driver, error) { return bus.Driver(), nil },
				Kill:   func(context.Context) error { bus.Crash(); return nil },
				Start:  func(context.Context) error { bus.Restart(); return nil },
			}
		},
		Wrap: func(t conformance.T, f func()) { synctest.Test(t.(*testing.T), func(*testing.T) { f() }) },
	}
}
