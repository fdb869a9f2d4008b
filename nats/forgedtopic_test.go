package nats_test

import (
	"context"
	"testing"
	"time"

	client "github.com/nats-io/nats.go"

	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A copy that says which topic it is of is believed only where its group consumes that: signatures are for a topic.
func TestForgedTopicOfARetry(t *testing.T) {
	s := startServer(t, "default")
	js := s.jetStream(t.Context(), t)
	for group, says := range map[string]map[string]string{
		"bills":   {"other": "bills", "bills.a": "bills", "bills": "bills"},
		"bills.*": {"other": "bills.*", "bills.a": "bills.a", "bills.a.b": "bills.*", "omnibus.x": "bills.*"},
	} {
		t.Run(group, func(t *testing.T) {
			b := s.open(t)
			sub := pubsub.Subscription{Topic: group, Group: "g"}
			if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "bills"}, {Name: "bills.a"}}, Groups: []pubsub.Subscription{sub}}); err != nil {
				t.Fatal(err)
			}
			got := make(chan *pubsub.Delivery, 10)
			if _, err := b.Subscribe(t.Context(), sub, func(_ context.Context, d *pubsub.Delivery) error { got <- d; return nil }); err != nil {
				t.Fatal(err)
			}
			for forged, want := range says {
				m := client.NewMsg(nats.PrivateSubject("omnibus", pubsub.Place{Topic: group, Group: "g", Kind: pubsub.PlaceRetry}, "0"))
				m.Header.Set("Omnibus-Id", forged)
				m.Header.Set("Omnibus-Topic", forged)
				if _, err := js.PublishMsg(t.Context(), m); err != nil {
					t.Fatal(err)
				}
				select {
				case d := <-got:
					if d.ID != forged || d.Topic != want {
						t.Errorf("message %s is of %s, want one of %s that is of %s", d.ID, d.Topic, forged, want)
					}
				case <-time.After(20 * time.Second):
					t.Fatalf("no message of %s", forged)
				}
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
