package redisstreams_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/redisstreams"
)

// A driver looks after a topic as long as somebody reads it there or something waits in it, and not for ever. What is published with a delay later is delivered
// all the same.
func TestTopicsAreLetGo(t *testing.T) {
	const topics = 20
	s := startServer(t, "default")
	d, err := s.driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	var specs []pubsub.TopicSpec
	for i := range topics {
		specs = append(specs, pubsub.TopicSpec{Name: fmt.Sprint("topic-", i)})
	}
	read := pubsub.Place{Topic: specs[0].Name, Group: "g"}
	group := pubsub.Subscription{Topic: read.Topic, Group: read.Group, AckWait: time.Minute, Order: pubsub.OrderNone}
	if err := d.Ensure(t.Context(), pubsub.Topology{Topics: specs, Groups: []pubsub.Subscription{group}}, pubsub.Create); err != nil {
		t.Fatal(err)
	}
	src, err := d.OpenSource(t.Context(), pubsub.SourceSpec{From: read, Order: pubsub.OrderNone, AckWait: time.Minute, MaxInFlight: 10, MaxInFlightBytes: 1 << 20, Member: "m"})
	if err != nil {
		t.Fatal(err)
	}
	publish := func(topic string, delay time.Duration) {
		t.Helper()
		out := pubsub.Out{To: pubsub.Place{Topic: topic}, Msg: &pubsub.Message{ID: topic, Delay: delay}}
		if r := exchange(t, d, []pubsub.Out{out})[0]; r.Fate != pubsub.FateAccepted {
			t.Fatal(r.Err)
		}
	}
	for i, spec := range specs {
		delay := 100 * time.Millisecond
		if i == 1 {
			delay = time.Hour
		}
		publish(spec.Name, delay)
	}
	if n := redisstreams.LookedAfter(d); n != topics {
		t.Errorf("%d topics are looked after, and something waits in %d", n, topics)
	}
	redisstreams.LaterStay(src)
	poll.Until(t, "the topics that are looked after", func() bool { return redisstreams.LookedAfter(d) == 2 }) // one is read, and something waits in another one
	publish(specs[2].Name, 100*time.Millisecond)
	c := s.client(t)
	poll.Until(t, "what was delayed", func() bool { return c.XLen(t.Context(), specs[2].Name).Val() == 2 })
	if err := src.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
