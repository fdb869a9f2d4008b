package nats_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Who only looks into a topic opens no session that would connect again for him.
func TestBrowseAfterRestart(t *testing.T) {
	s := ownServer(t, "default")
	b := s.open(t)
	topics := pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "a"}}}
	if err := b.Ensure(t.Context(), topics); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), "a", pubsub.Message{ID: "1"}); err != nil {
		t.Fatal(err)
	}
	d, err := s.driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	for life := range 3 {
		n := 0
		for _, err := range d.(pubsub.Browser).Browse(t.Context(), pubsub.Place{Topic: "a"}, pubsub.Position{}) {
			if err != nil {
				t.Fatalf("after %d restarts: %v", life, err)
			}
			n++
		}
		if n != 1 {
			t.Errorf("after %d restarts there are %d messages", life, n)
		}
		if err := s.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// A server that the URL does not name is known for as long as the Broker is open, not for one reconnect only.
func TestDiscoveredServersAreKept(t *testing.T) {
	s := ownServer(t, "cluster")
	first := s.Nodes()[0]
	b, err := nats.Open(t.Context(), "nats://"+first.Addr(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := first.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		poll.Until(t, fmt.Sprintf("somebody answers in round %d", round), func() bool { return b.Ping(t.Context()) == nil })
		for _, n := range s.Nodes()[1:] { // breaks the connection, wherever it is
			if err := n.Cut(); err != nil {
				t.Fatal(err)
			}
			if err := n.Mend(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A server that lost the end of its stream gives its numbers again: to messages that nobody has handled.
func TestNumbersThatAreGivenAgain(t *testing.T) {
	s := startServer(t, "default")
	d, err := s.driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := pubsub.New(t.Context(), d, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	sub := pubsub.Subscription{Topic: "a", Group: "g", Concurrency: 1}
	if err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{sub}}); err != nil {
		t.Fatal(err)
	}
	stored := map[uint64]uint64{}
	stream, err := s.jetStream(t.Context(), t).Stream(t.Context(), "omnibus")
	if err != nil {
		t.Fatal(err)
	}
	for seq, id := range []string{"handled", "number given again", "last"} {
		if err := b.Publish(t.Context(), "a", pubsub.Message{ID: id}); err != nil {
			t.Fatal(err)
		}
		m, err := stream.GetMsg(t.Context(), uint64(seq+1))
		if err != nil {
			t.Fatal(err)
		}
		stored[m.Sequence] = uint64(m.Time.UnixNano())
	}
	stored[2] -= uint64(time.Minute) // the one of that number that was acked was another
	delete(stored, 3)
	if err := nats.HasAcked(t.Context(), d, "a", "g", stored); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 10)
	if _, err := b.Subscribe(t.Context(), sub, func(_ context.Context, d *pubsub.Delivery) error { got <- d.ID; return nil }); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"number given again", "last"} {
		select {
		case id := <-got:
			if id != want {
				t.Errorf("%q was handled, want %q", id, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%q was not handled", want)
		}
	}
}
