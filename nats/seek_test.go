package nats_test

import (
	"fmt"
	"testing"

	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A seek that was cut off has removed a consumer. The next one makes it again, and moves all partitions.
func TestSeekAfterOneThatWasCutOff(t *testing.T) {
	const all = 90
	s := startServer(t, "default")
	b := s.open(t)
	sub := pubsub.Subscription{Topic: "orders", Group: "g"}
	topics := []pubsub.TopicSpec{{Name: "orders", Partitions: 3}}
	for lost := range int32(3) {
		if err := b.Ensure(t.Context(), pubsub.Topology{Topics: topics, Groups: []pubsub.Subscription{sub}}); err != nil {
			t.Fatal(err)
		}
		msgs := make([]pubsub.Message, all/3)
		for i := range msgs {
			msgs[i].Key = fmt.Sprint(i)
		}
		if err := b.PublishBatch(t.Context(), "orders", msgs); err != nil {
			t.Fatal(err)
		}
		js := s.jetStream(t.Context(), t)
		if err := js.DeleteConsumer(t.Context(), "omnibus", nats.Durable(pubsub.Place{Topic: "orders", Group: "g"}, lost)); err != nil {
			t.Fatal(err)
		}
		if err := b.Seek(t.Context(), "orders", "g", pubsub.FromEarliest()); err != nil {
			t.Fatalf("without the consumer of partition %d: %v", lost, err)
		}
		lag, err := b.Lag(t.Context(), "orders", "g")
		if want := int64(len(msgs)) * int64(lost+1); err != nil || lag.Messages != want {
			t.Errorf("without the consumer of partition %d: a lag of %+v, %v; want %d", lost, lag, err, want)
		}
	}
}
