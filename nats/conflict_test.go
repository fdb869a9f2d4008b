package nats_test

import (
	"cmp"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Two groups whose topic and name run into one, as those had that were made when a name could begin with an underscore: the second must not read the first one's topic.
func TestNamesThatMeet(t *testing.T) {
	s := startServer(t, "default")
	b := s.open(t)
	first := pubsub.Topology{Groups: []pubsub.Subscription{{Topic: "a_", Group: "b"}}}
	if err := b.Ensure(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	d, err := s.driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close(t.Context()) }()
	second := pubsub.Subscription{Topic: "a", Group: "_b", AckWait: 30 * time.Second}
	err = d.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{second}}, pubsub.Create)
	if code, _ := d.Classify(cmp.Or(err, errors.New("none"))); code != pubsub.ErrConflict {
		t.Errorf("the second: %v, want ErrConflict", err)
	}
	if err := b.Ensure(t.Context(), first); err != nil {
		t.Errorf("the first again: %v", err)
	}
}

// The stream that is made after Open keeps less than Open has declared: a nil would say too much.
func TestStreamThatKeepsLess(t *testing.T) {
	s := startServer(t, "default")
	b := s.open(t)
	cfg := jetstream.StreamConfig{Name: "omnibus", Subjects: []string{"a"}, Storage: jetstream.MemoryStorage}
	if _, err := s.jetStream(t.Context(), t).CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), "a", pubsub.Message{}); !errors.Is(err, pubsub.ErrConflict) {
		t.Errorf("publish: %v, want ErrConflict", err)
	}
	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "a"}}}); !errors.Is(err, pubsub.ErrConflict) {
		t.Errorf("ensure: %v, want ErrConflict", err)
	}
}
