package rabbitmq_test

import (
	"fmt"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

// What waits for a topic that nobody reads goes when its time has come, and holds up nothing behind it.
func TestNobodyWants(t *testing.T) {
	const n = 500 // a step that found no place for a few would keep all of them
	s := startServer(t, "default")
	b := s.open(t, nil, nil)
	sub := pubsub.Subscription{Topic: "wanted", Group: "g", Order: pubsub.OrderByKeyLoose}
	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "unwanted"}, {Name: "wanted"}}, Groups: []pubsub.Subscription{sub}}); err != nil {
		t.Fatal(err)
	}
	list := make([]pubsub.Message, n)
	for i := range list {
		list[i] = pubsub.Message{Payload: fmt.Appendf(nil, "%d", i), Delay: 300 * time.Millisecond}
	}
	if err := b.PublishBatch(t.Context(), "unwanted", list); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), "wanted", pubsub.Message{ID: "behind", Delay: 300 * time.Millisecond}); err != nil {
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
