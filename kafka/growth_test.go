package kafka_test

import (
	"fmt"
	"net/url"
	"slices"
	"testing"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

// TestPartitionsAreAdded gives a topic more partitions while a group reads it: the group gets what is in them, and what is sent to the group alone
// has as many, unless nothing is to be made. Later that one has more, as after a topic was made again: they are read too.
func TestPartitionsAreAdded(t *testing.T) {
	s := startServer(t, "default")
	for name, m := range map[string]pubsub.Manage{"create": pubsub.Create, "verify": pubsub.Verify} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := s.open(t)
			topic := unique("grows")
			sub := pubsub.Subscription{Topic: topic, Group: "g"}
			top := pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: topic, Partitions: 2}}, Groups: []pubsub.Subscription{sub}}
			if err := b.Ensure(t.Context(), top); err != nil {
				t.Fatal(err)
			}
			var c tally
			var consumers []*pubsub.Consumer
			for range 2 {
				at, err := kafka.Open(t.Context(), s.address(t, nil), &pubsub.Options{Manage: m})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = at.Close() }()
				one, err := at.Subscribe(t.Context(), sub, c.handle)
				if err != nil {
					t.Fatal(err)
				}
				consumers = append(consumers, one)
			}
			admin, err := s.admin(t.Context(), t)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = admin.Close() }()
			if err := admin.CreatePartitions(topic, 4, nil, false); err != nil {
				t.Fatal(err)
			}
			parts := func(topic string) int {
				all, err := admin.DescribeTopics([]string{topic})
				if err != nil || len(all) != 1 {
					return -1
				}
				return len(all[0].Partitions)
			}
			poll.Until(t, "the partitions", func() bool { return parts(topic) == 4 })
			retry := "omnibus.retry." + topic + "__g"
			p := s.open(t) // which has not seen the topic before
			keys := make([]string, 4)
			for i := 0; slices.Contains(keys, ""); i++ {
				key := fmt.Sprint("key", i)
				keys[kafka.PartitionOf(key, 4)] = key
			}
			send := func(from, to int) {
				for i := from; i < to; i++ {
					if err := p.Publish(t.Context(), topic, pubsub.Message{Key: keys[i%4], Payload: fmt.Append(nil, i)}); err != nil {
						t.Fatal(err)
					}
				}
			}
			send(0, 40)
			poll.Until(t, "what is in the new partitions", func() bool { return c.count() == 40 })
			want := map[pubsub.Manage]int{pubsub.Create: 4, pubsub.Verify: 2}[m]
			poll.Until(t, "the partitions of the group's own", func() bool { return parts(retry) == want })
			if err := admin.CreatePartitions(retry, 6, nil, false); err != nil {
				t.Fatal(err)
			}
			send(40, 80)
			poll.Until(t, "the rest", func() bool { return c.count() == 80 })
			for _, one := range consumers {
				select {
				case <-one.Done():
					t.Errorf("a consumer ended: %v", one.Err())
				default:
				}
			}
			if n := c.most(); n != 1 {
				t.Errorf("a message came %d times", n)
			}
		})
	}
}

// TestPartitionsAreAddedWhileALeaderIsAway restarts a member that has a name, which the group does not notice: nobody leads it from then on, and the topic has got
// more partitions meanwhile.
func TestPartitionsAreAddedWhileALeaderIsAway(t *testing.T) {
	s := startServer(t, "default")
	topic := unique("away")
	sub := pubsub.Subscription{Topic: topic, Group: "g"}
	admin, err := s.admin(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close() }()
	var c tally
	for i, parts := range []int32{2, 4} {
		b, err := kafka.Open(t.Context(), s.address(t, url.Values{"instance": {"one"}}), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = b.Close() }()
		if i == 0 {
			if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: topic, Partitions: 2}}}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.Subscribe(t.Context(), sub, c.handle); err != nil {
			t.Fatal(err)
		}
		p := s.open(t)
		for k := range 20 {
			key := fmt.Sprint("key", k)
			if err := p.Publish(t.Context(), topic, pubsub.Message{Key: key, Payload: fmt.Append(nil, parts, key)}); err != nil {
				t.Fatal(err)
			}
		}
		poll.Until(t, "what is in all partitions", func() bool { return c.count() == 20*(i+1) })
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := admin.CreatePartitions(topic, 4, nil, false); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestTopicMadeAgain makes a group that begins behind a hundred messages, and then the topic anew: all that is in the new one is the group's.
func TestTopicMadeAgain(t *testing.T) {
	s := startServer(t, "default")
	b := s.open(t)
	topic := unique("again")
	sub := pubsub.Subscription{Topic: topic, Group: "g", Start: pubsub.FromNow()}
	spec := pubsub.TopicSpec{Name: topic, Partitions: 1}
	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{spec}}); err != nil {
		t.Fatal(err)
	}
	publish(t, b, topic, 0, 100)
	if err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{sub}}); err != nil {
		t.Fatal(err)
	}
	admin, err := s.admin(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close() }()
	if err := admin.DeleteTopic(topic); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the end of the topic", func() bool {
		all, err := admin.ListTopics()
		_, there := all[topic]
		return err == nil && !there
	})
	again := s.open(t)
	if err := again.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{spec}}); err != nil {
		t.Fatal(err)
	}
	publish(t, again, topic, 1000, 1150)
	if lag, err := again.Lag(t.Context(), topic, "g"); err != nil || lag.Messages != 150 {
		t.Errorf("the group is behind by %v, %v, want 150", lag.Messages, err)
	}
	var c tally
	if _, err := again.Subscribe(t.Context(), sub, c.handle); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "what is in the new topic", func() bool { return c.count() == 150 })
}

// most is how often the message came that came most often.
func (c *tally) most() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, times := range c.seen {
		n = max(n, times)
	}
	return n
}
