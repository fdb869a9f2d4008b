package kafka_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// TestSeekToPosition begins with one message of a topic that has several partitions: what came later is read again from all of them, and no more. A position
// that is none in the topic is refused.
func TestSeekToPosition(t *testing.T) {
	s := startServer(t, "default")
	b := s.open(t)
	topic := unique("seek")
	sub := pubsub.Subscription{Topic: topic, Group: "g"}
	top := pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: topic, Partitions: 4}}, Groups: []pubsub.Subscription{sub}}
	if err := b.Ensure(t.Context(), top); err != nil {
		t.Fatal(err)
	}
	send := func(from, to int) {
		for i := from; i < to; i++ {
			if err := b.Publish(t.Context(), topic, pubsub.Message{Key: fmt.Sprint("key", i), Payload: fmt.Append(nil, i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	send(0, 40)
	time.Sleep(10 * time.Millisecond) // timestamps have milliseconds
	send(40, 60)
	var at pubsub.Position
	for r, err := range b.Browse(t.Context(), pubsub.Place{Topic: topic}, pubsub.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		if string(r.Msg.Payload) == "40" {
			at = r.Pos
		}
	}
	if err := b.Seek(t.Context(), topic, "g", pubsub.FromPosition(at)); err != nil {
		t.Fatal(err)
	}
	if lag, err := b.Lag(t.Context(), topic, "g"); err != nil || lag.Messages != 20 {
		t.Errorf("the group is behind by %d, %v, want 20", lag.Messages, err)
	}
	for _, wrong := range []pubsub.Position{
		pubsub.NewPosition(99, 3, 0, 0), pubsub.NewPosition(2, 3, 1, 0), pubsub.NewPosition(2, 3, 0, 4), {},
	} {
		if err := b.Seek(t.Context(), topic, "g", pubsub.FromPosition(wrong)); !errors.Is(err, pubsub.ErrInvalid) {
			t.Errorf("position %v: %v, want ErrInvalid", wrong, err)
		}
	}
}
