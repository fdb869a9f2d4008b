package nats_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Two lanes wait for more old messages than the member may hold, and the room that is left is asked for by lanes where nothing comes. The
// first ones of each lane come last, when a lease ends that was renewed: none may go out before them.
func TestOldMessagesOfTwoLanesFindRoom(t *testing.T) {
	const each, limit = 29, 32
	s := startServer(t, "default")
	sub := pubsub.Subscription{Topic: "a", Group: "g", AckWait: 2 * time.Second, MaxInFlight: limit, Concurrency: 4}
	b := s.open(t)
	spec := pubsub.TopicSpec{Name: "a", Partitions: 4}
	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{spec}, Groups: []pubsub.Subscription{sub}}); err != nil {
		t.Fatal(err)
	}
	leave := func(subject, consumer string) { // as members do that were killed
		nc, err := client.Connect(s.URL())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 2 * each {
			m := &client.Msg{Subject: subject, Header: client.Header{"Omnibus-Key": {subject}}, Data: []byte{byte(i)}}
			if _, err := js.PublishMsg(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		c, err := js.Consumer(t.Context(), "omnibus", consumer)
		if err != nil {
			t.Fatal(err)
		}
		batch, err := c.Fetch(each, jetstream.FetchPriorityGroup("omnibus"))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		var first []jetstream.Msg
		for m := range batch.Messages() {
			if n++; n <= 5 {
				first = append(first, m)
			}
		}
		time.Sleep(time.Second) // half a lease: those that are renewed now come again a second after the others
		for _, m := range first {
			if err := m.InProgress(); err != nil {
				t.Fatal(err)
			}
		}
		if n != each {
			t.Fatalf("%d of %d messages: %v", n, each, batch.Error())
		}
		stream, err := js.Stream(t.Context(), "omnibus")
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.UnpinConsumer(t.Context(), consumer, "omnibus"); err != nil {
			t.Fatal(err)
		}
	}
	leave("a", "a__g")
	leave("omnibus.lane.1.a", "a__g__1")
	var handled atomic.Int64
	var lastOf sync.Map // by key
	handle := func(_ context.Context, d *pubsub.Delivery) error {
		n := int(d.Payload[0])
		if last, ok := lastOf.Swap(d.Key, n); ok && n <= last.(int) {
			t.Errorf("%s: %d comes after %d", d.Key, n, last)
		}
		handled.Add(1)
		return nil
	}
	if _, err := b.Subscribe(t.Context(), sub, handle); err != nil {
		t.Fatal(err)
	}
	if !poll.Holds(poll.Patience, func() bool { return handled.Load() >= 4*each }) {
		t.Fatalf("%d of %d messages were handled", handled.Load(), 4*each)
	}
}
