package redisstreams_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/redisstreams"
)

// More retries than a page has wait until the same millisecond, in partitions, and those go away that others are shown behind: each that stays is shown once.
func TestWaitingUntilTheSameMoment(t *testing.T) {
	const n, partitions = 500, 2
	s := startServer(t, "default")
	b, err := redisstreams.Open(t.Context(), s.address(nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	g := pubsub.Subscription{Topic: "moment", Group: "g", Order: pubsub.OrderNone, Concurrency: 16}
	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: g.Topic, Partitions: partitions}}, Groups: []pubsub.Subscription{g}}); err != nil {
		t.Fatal(err)
	}
	msgs := make([]pubsub.Message, n)
	for i := range msgs {
		msgs[i] = pubsub.Message{ID: fmt.Sprint("m-", i), Key: fmt.Sprint("k-", i%10)}
	}
	if err := b.PublishBatch(t.Context(), g.Topic, msgs); err != nil {
		t.Fatal(err)
	}
	consumer, err := b.Subscribe(t.Context(), g, func(context.Context, *pubsub.Delivery) error {
		return pubsub.RetryAfter(time.Hour, errors.New("fails"))
	})
	if err != nil {
		t.Fatal(err)
	}
	list := func(each func(i int, w pubsub.Waiting)) (ids map[string]int) {
		t.Helper()
		ids = map[string]int{}
		i := 0
		for w, err := range b.Waiting(t.Context(), g.Topic, g.Group) {
			if err != nil {
				t.Fatal(err)
			}
			if each != nil {
				each(i, w)
			}
			ids[w.Record.Msg.ID]++
			i++
		}
		return ids
	}
	poll.Until(t, "all of them to wait", func() bool { return len(list(nil)) == n })
	if err := consumer.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, moment := s.client(t), float64(time.Now().Add(time.Hour).UnixMilli())
	for _, tag := range []string{"{moment}", "{moment:1}"} {
		key := "omnibus.due." + tag + "__g"
		all := c.ZRange(t.Context(), key, 0, -1).Val()
		for _, id := range all {
			c.ZAdd(t.Context(), key, redis.Z{Score: moment, Member: id})
		}
		if len(all) == 0 {
			t.Fatalf("in %s nothing waits: %v", key, c.Keys(t.Context(), "omnibus.due*").Val())
		}
	}
	for id, times := range list(nil) {
		if times != 1 {
			t.Errorf("%s is shown %d times", id, times)
		}
	}
	gone := map[string]bool{}
	got := list(func(i int, w pubsub.Waiting) {
		if i%3 == 0 || i%128 == 127 { // the last of a page, too
			if err := b.RetryNow(t.Context(), g.Topic, g.Group, w); err != nil {
				t.Fatal(err)
			}
			gone[w.Record.Msg.ID] = true
		}
	})
	if len(got) != n {
		t.Errorf("%d are shown, want %d", len(got), n)
	}
	for id, times := range got {
		if times != 1 {
			t.Errorf("%s is shown %d times, while others go away", id, times)
		}
	}
	rest := list(nil)
	for _, m := range msgs {
		if gone[m.ID] == (rest[m.ID] > 0) {
			t.Errorf("%s waits %d times; it was made due: %v", m.ID, rest[m.ID], gone[m.ID])
		}
	}
}
