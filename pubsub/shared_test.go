package pubsub_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// TestAppendedByTwoGroups: in this process two groups get one message, and what the handler of one appends to its payload or headers the other does not get.
func TestAppendedByTwoGroups(t *testing.T) {
	for name, layers := range map[string][]pubsub.Middleware{
		"as it is": nil,
		"of a layer": {{Name: "copies", Outgoing: func(_ context.Context, _ string, m *pubsub.Message) error {
			m.Payload = append(make([]byte, 0, 2*len(m.Payload)), m.Payload...)
			m.Headers = append(make(pubsub.Headers, 0, 2*len(m.Headers)), m.Headers...)
			return nil
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := memory.New(&pubsub.Options{Use: layers})
				defer b.Close()
				type grown struct {
					payload []byte
					headers pubsub.Headers
				}
				got := map[string]chan grown{}
				for _, group := range []string{"a", "b"} {
					got[group] = make(chan grown, 1)
					_, err := b.Subscribe(t.Context(), pubsub.Subscription{Topic: "t", Group: group}, func(_ context.Context, d *pubsub.Delivery) error {
						got[group] <- grown{append(d.Payload, group...), append(d.Headers, pubsub.Header{Name: group})}
						return nil
					})
					if err != nil {
						t.Fatal(err)
					}
				}
				m := pubsub.Message{Payload: make([]byte, 5000)} // neither fills what the allocator gives
				for range 13 {
					m.Headers.Add("h", "v")
				}
				if err := b.Publish(t.Context(), "t", m); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				for group, ch := range got {
					if g := <-ch; string(g.payload[5000:]) != group || g.headers[13].Name != group {
						t.Errorf("group %q has appended itself, and has %q and the header %q", group, g.payload[5000:], g.headers[13].Name)
					}
				}
			})
		})
	}
}
