package kafka_test

import (
	"testing"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A topic that was made a moment ago tells its lag and shows what it has: its leader may not know yet that it is.
func TestNewTopicAnswers(t *testing.T) {
	b := startServer(t, "default").open(t)
	for range 25 {
		topic := unique("new")
		top := pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: topic, Partitions: 4}}, Groups: []pubsub.Subscription{{Topic: topic, Group: "g"}}}
		if err := b.Ensure(t.Context(), top); err != nil {
			t.Fatal(err)
		}
		for _, err := range b.Browse(t.Context(), pubsub.Place{Topic: topic}, pubsub.Position{}) {
			t.Errorf("browse: %v", err)
		}
		if _, err := b.Lag(t.Context(), topic, "g"); err != nil {
			t.Errorf("lag: %v", err)
		}
	}
}
