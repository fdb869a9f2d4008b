package conformance_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/pubsub"
)

// The suite judges adapters that it does not know, written from the documentation alone.

func onChannels() conformance.Harness {
	return conformance.Harness{
		Fresh: func() conformance.Harness {
			b := newChannelBus()
			return conformance.Harness{Driver: func(context.Context) (pubsub.Driver, error) { return b.driver(), nil }}
		},
		Wrap: func(t conformance.T, f func()) { synctest.Test(t.(*testing.T), func(*testing.T) { f() }) },
	}
}

// noReport runs a suite whose report nobody keeps.
func noReport(t *testing.T, h conformance.Harness) {
	t.Helper()
	t.Setenv("OMNIBUS_REPORTS", t.TempDir())
	conformance.Run(t, h)
}

func TestChannels(t *testing.T) { noReport(t, onChannels()) }

// onFiles is the harness of a bus and its connections.
func onFiles(t *testing.T, connect func(dir string) (*fileBus, func() pubsub.Driver)) conformance.Harness {
	t.Helper()
	return conformance.Harness{
		Fresh: func() conformance.Harness {
			b, open := connect(t.TempDir())
			return conformance.Harness{
				Driver: func(context.Context) (pubsub.Driver, error) { return open(), nil },
				Kill:   func(context.Context) error { return b.end(nil, true) },
				Start:  func(context.Context) error { return b.end(nil, false) },
			}
		},
		Wrap: func(t conformance.T, f func()) { synctest.Test(t.(*testing.T), func(*testing.T) { f() }) },
	}
}

func TestFiles(t *testing.T) {
	noReport(t, onFiles(t, func(dir string) (*fileBus, func() pubsub.Driver) {
		b := &fileBus{dir: dir, queues: map[string]*fileQueue{}}
		return b, func() pubsub.Driver { return &fileDriver{fileBus: b} }
	}))
}

// An adapter that is almost right: after a connection has dropped it loses one message in a thousand.
func TestLossyFiles(t *testing.T) {
	t.Parallel()
	const notices = "Faults/Schedules"
	rep := checkIn(t, onFiles(t, func(dir string) (*fileBus, func() pubsub.Driver) {
		b := &lossyBus{fileBus: fileBus{dir: dir, queues: map[string]*fileQueue{}}}
		return &b.fileBus, func() pubsub.Driver { return lossyDriver{&fileDriver{fileBus: &b.fileBus}, b} }
	}))
	var noticed []string
	for _, p := range rep.Properties {
		if p.Status != conformance.Failed {
			continue
		}
		noticed = append(noticed, p.Name)
		t.Logf("%s: %s", p.Name, p.Reason)
		if !strings.HasPrefix(p.Reason, "g lost ") || p.Lost == 0 {
			t.Errorf("%s complains, and not of losses: %s", p.Name, p.Reason)
		}
	}
	if !slices.Contains(noticed, notices) {
		t.Errorf("%s does not notice; %v do", notices, noticed)
	}
	if rep.OK() {
		t.Error("the report on an adapter that loses messages is OK")
	}
}
