package containers

import (
	"context"
	"testing"
)

// ForTest is [Start] for a test: the broker is closed once the test and its subtests have ended. What fails ends the test.
// The broker may be one that was given by URL, see [Broker.Ours]. A test that breaks it wants OwnForTest.
func ForTest(tb testing.TB, kind, variant string) *Broker {
	tb.Helper()
	b, err := Start(tb.Context(), kind, variant)
	if err != nil {
		tb.Fatal(err)
	}
	closeAfter(tb, b)
	return b
}

// OwnForTest is ForTest for a test that breaks its broker, or changes settings of it that are everybody's. That broker is always one in containers that
// nobody else has: one that the environment names is left alone.
func OwnForTest(tb testing.TB, kind, variant string) *Broker {
	tb.Helper()
	b, err := own(tb.Context(), kind, variant)
	if err != nil {
		tb.Fatalf("%v\nThis test breaks its broker: it needs one of its own, in a container, also where the environment names one. -skip leaves it out.", err)
	}
	closeAfter(tb, b)
	return b
}

// own is Start, whatever the environment names.
func own(ctx context.Context, kind, variant string) (*Broker, error) {
	k, variant, err := lookup(kind, variant)
	if err != nil {
		return nil, err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	return k.start(ctx, variant, true)
}

func closeAfter(tb testing.TB, b *Broker) {
	tb.Helper()
	tb.Cleanup(func() {
		if err := b.Close(context.WithoutCancel(tb.Context())); err != nil {
			tb.Error(err)
		}
	})
}
