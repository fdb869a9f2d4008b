package rabbitmq_test

import (
	"context"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/rabbitmq"
)

// A copy that says which topic it is of is believed only where its group consumes that: signatures are for a topic.
func TestForgedTopicOfARetry(t *testing.T) {
	s := startServer(t, "default")
	for group, says := range map[string]map[string]string{
		"bills":   {"other": "bills", "bills.a": "bills", "bills": "bills"},
		"bills.*": {"other": "bills.*", "bills.a": "bills.a", "bills.a.b": "bills.*", "omnibus.x": "bills.*"},
	} {
		t.Run(group, func(t *testing.T) {
			b := s.open(t, nil, nil)
			got := make(chan *pubsub.Delivery, 10)
			sub := pubsub.Subscription{Topic: group, Group: "g"}
			if _, err := b.Subscribe(t.Context(), sub, func(_ context.Context, d *pubsub.Delivery) error { got <- d; return nil }); err != nil {
				t.Fatal(err)
			}
			queue := rabbitmq.QueueName("omnibus", "", pubsub.Place{Topic: group, Group: "g"}, 0)
			for forged, want := range says {
				s.must(t, func(ch *amqp.Channel) error {
					return ch.PublishWithContext(t.Context(), "", queue, true, false, amqp.Publishing{MessageId: forged, Headers: amqp.Table{"omnibus.topic": forged}})
				})
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
