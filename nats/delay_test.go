package nats_test

import (
	"context"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
)

// What waits for its time survives the server, and comes to its partition as it was published.
func TestDelayedSurvivesKill(t *testing.T) {
	s := ownServer(t, "default")
	b := s.open(t)
	sub := pubsub.Subscription{Topic: "later", Group: "g"}
	spec := pubsub.TopicSpec{Name: "later", Partitions: 4}
	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{spec}, Groups: []pubsub.Subscription{sub}}); err != nil {
		t.Fatal(err)
	}
	const delay = 3 * time.Second
	keys := []string{"a", "b", "c", "d", "e", "f"}
	begin := time.Now()
	for _, k := range keys {
		m := pubsub.Message{ID: "id-" + k, Key: k, Payload: []byte(k), Headers: pubsub.Headers{{Name: "One", Value: " 1%"}, {Name: "one", Value: ""}}, Delay: delay}
		if err := b.Publish(t.Context(), "later", m); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := make(chan pubsub.Message, 2*len(keys))
	if _, err := b.Subscribe(t.Context(), sub, func(_ context.Context, d *pubsub.Delivery) error {
		if early := time.Until(begin.Add(delay)); early > 0 {
			t.Errorf("message %s came %v early", d.ID, early)
		}
		got <- d.Message
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range keys {
		select {
		case m := <-got:
			seen[m.ID] = true
			if m.ID != "id-"+m.Key || string(m.Payload) != m.Key || len(m.Headers) != 2 || m.Headers[0] != (pubsub.Header{Name: "One", Value: " 1%"}) ||
				m.Headers[1] != (pubsub.Header{Name: "one"}) {
				t.Errorf("it came as %+v", m)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("after 30 s only %v came", seen)
		}
	}
	if len(seen) != len(keys) {
		t.Errorf("these came: %v", seen)
	}
}

// A message must not go with the history before its time has come.
func TestDelayAsLongAsRetentionIsRefused(t *testing.T) {
	s := startServer(t, "default")
	b := s.open(t)
	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "later", Retention: time.Minute}}}); err != nil {
		t.Fatal(err)
	}
	for delay, want := range map[time.Duration]error{time.Minute: pubsub.ErrUnsupported, 59 * time.Second: nil} {
		if err := b.Publish(t.Context(), "later", pubsub.Message{Delay: delay}); !errors.Is(err, want) {
			t.Errorf("a delay of %v: %v, want %v", delay, err, want)
		}
	}
}

// Where somebody's stream does not schedule messages, nothing is delayed, and that is said.
func TestStreamWithoutSchedules(t *testing.T) {
	s := startServer(t, "default")
	if _, err := s.jetStream(t.Context(), t).CreateStream(t.Context(), jetstream.StreamConfig{Name: "theirs", Subjects: []string{"a.>"}}); err != nil {
		t.Fatal(err)
	}
	b, err := nats.Open(t.Context(), s.address(url.Values{"stream": {"theirs"}}), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Publish(t.Context(), "a.b", pubsub.Message{Delay: time.Second}); !errors.Is(err, pubsub.ErrUnsupported) {
		t.Errorf("with a delay: %v, want ErrUnsupported", err)
	}
	if err := b.Publish(t.Context(), "a.b", pubsub.Message{}); err != nil {
		t.Errorf("without: %v", err)
	}
}
