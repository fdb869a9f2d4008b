package adaptertest

import (
	"context"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// TestForgedTopic asks for this: a copy that says which topic it is of is believed only where its group consumes that, since signatures are for a topic. forge puts
// a message with the ID forged, which says that it is of the topic forged, where the group named "g" of a topic or pattern gets its copies.
func TestForgedTopic(t *testing.T, open func(t *testing.T) *pubsub.Broker, forge func(ctx context.Context, topic, forged string) error) {
	for topic, says := range map[string]map[string]string{
		"bills":   {"other": "bills", "bills.a": "bills", "bills": "bills"},
		"bills.*": {"other": "bills.*", "bills.a": "bills.a", "bills.a.b": "bills.*", "omnibus.x": "bills.*"},
	} {
		t.Run(topic, func(t *testing.T) {
			b := open(t)
			sub := pubsub.Subscription{Topic: topic, Group: "g"}
			if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "bills"}, {Name: "bills.a"}}, Groups: []pubsub.Subscription{sub}}); err != nil {
				t.Fatal(err)
			}
			got := make(chan *pubsub.Delivery, 10)
			if _, err := b.Subscribe(t.Context(), sub, func(_ context.Context, d *pubsub.Delivery) error { got <- d; return nil }); err != nil {
				t.Fatal(err)
			}
			for forged, want := range says {
				if err := forge(t.Context(), topic, forged); err != nil {
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
