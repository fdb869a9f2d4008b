package containers_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/omnibus-go/omnibus/conformance/containers"
)

// chatter keeps a client busy until the test ends: a black hole shows only where somebody speaks.
func chatter(t *testing.T, b *containers.Broker) *nats.Conn {
	t.Helper()
	nc := connect(t, b, nats.PingInterval(time.Second))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			brief, end := context.WithTimeout(ctx, 50*time.Millisecond)
			_, _ = nc.RequestWithContext(brief, "$JS.API.INFO", nil) // fails while the fault lasts
			end()
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return nc
}

// Each fault that a soak may draw is seen to work, and afterwards the broker serves again.
func TestFaults(t *testing.T) {
	for variant, names := range map[string]string{
		"default": "pause, black hole, half-open, cut, latency",
		"cluster": "pause, black hole, half-open, cut, latency, kill nats-0, pause nats-0, wipe nats-0, " +
			"kill nats-1, pause nats-1, wipe nats-1, kill nats-2, pause nats-2, wipe nats-2",
	} {
		t.Run(variant, func(t *testing.T) {
			b := start(t, variant)
			nc := chatter(t, b)
			var got []string
			for _, f := range b.Faults() {
				got = append(got, f.Name)
				if f.Loses != strings.HasPrefix(f.Name, "wipe") {
					t.Errorf("%s loses data: %v", f.Name, f.Loses)
				}
				if strings.HasSuffix(f.Name, "-1") || strings.HasSuffix(f.Name, "-2") {
					continue // the same as of the first node
				}
				end, err := f.Strike(t.Context())
				if err != nil {
					t.Fatalf("%s: %v", f.Name, err)
				}
				time.Sleep(200 * time.Millisecond) // so long it lasts
				if effect, err := end(t.Context()); err != nil || !effect {
					t.Errorf("%s: effect %v, %v", f.Name, effect, err)
				}
				waitFor(t, func() bool {
					_, err := nc.Request("$JS.API.INFO", nil, 2*time.Second)
					return err == nil
				})
			}
			if all := strings.Join(got, ", "); all != names {
				t.Errorf("the faults are %s", all)
			}
		})
	}
}

// A fault that strikes nobody says so: no client speaks, so nothing vanishes.
func TestFaultWithoutEffect(t *testing.T) {
	b := start(t, "default")
	for _, f := range b.Faults() {
		if f.Name != "black hole" {
			continue
		}
		end, err := f.Strike(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if effect, err := end(t.Context()); effect || err != nil {
			t.Errorf("effect %v, %v", effect, err)
		}
	}
}
