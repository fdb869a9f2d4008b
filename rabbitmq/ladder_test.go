package rabbitmq_test

import (
	"fmt"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

// What waits for a group that is gone goes when its time has come, and holds up nothing behind it.
func TestNobodyWants(t *testing.T) {
	const n = 500 // a step that found no place for a few would keep all of them
	s := startServer(t, "default")
	b := s.open(t, nil, nil)
	groups := []pubsub.Subscription{{Topic: "wanted", Group: "g", Order: pubsub.OrderByKeyLoose}, {Topic: "unwanted", Group: "g"}}
	if err := b.Ensure(t.Context(), pubsub.Topology{Groups: groups}); err != nil {
		t.Fatal(err)
	}
	list := make([]pubsub.Message, n)
	for i := range list {
		list[i] = pubsub.Message{Payload: fmt.Appendf(nil, "%d", i), Delay: time.Second}
	}
	if err := b.PublishBatch(t.Context(), "unwanted", list); err != nil {
		t.Fatal(err)
	}
	s.must(t, func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete("unwanted__g", false, false, false)
		return err
	})
	if err := b.Publish(t.Context(), "wanted", pubsub.Message{ID: "behind", Delay: time.Second}); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the message behind it", func() (came bool) {
		s.must(t, func(ch *amqp.Channel) error {
			q, err := ch.QueueDeclarePassive("wanted__g", true, false, false, false, nil)
			came = q.Messages == 1
			return err
		})
		return came
	})
}
