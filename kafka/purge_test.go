package kafka_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Dead letters in several partitions, which an operator has made, are not purged: nobody knows up to where the others were shown.
func TestPurgeOfSeveralPartitions(t *testing.T) {
	s := startServer(t, "default")
	admin, err := s.admin(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close() }()
	topic := unique("orders")
	place := pubsub.Place{Topic: topic, Group: "g", Kind: pubsub.PlaceDead}
	dead := kafka.TopicOf(place)
	if err := admin.CreateTopic(dead, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false); err != nil {
		t.Fatal(err)
	}
	b := s.open(t)
	if err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{{Topic: topic, Group: "g"}}}); err != nil {
		t.Fatal(err)
	}
	add := func(id string) {
		t.Helper()
		stored := make(chan error, 1)
		b.Resend(t.Context(), place, pubsub.Message{ID: id, Time: time.Now()}, pubsub.Dedup{}, func(_ pubsub.Receipt, err error) { stored <- err })
		if err := <-stored; err != nil {
			t.Fatal(err)
		}
	}
	are := func(want int) (last pubsub.Position) {
		t.Helper()
		n := 0
		for r, err := range b.Browse(t.Context(), place, pubsub.Position{}) {
			if err != nil {
				t.Fatal(err)
			}
			n, last = n+1, r.Pos
		}
		if n != want {
			t.Errorf("there are %d dead letters, want %d", n, want)
		}
		return last
	}
	add("1")
	add("2")
	last := are(2)
	if err := admin.CreatePartitions(dead, 3, nil, false); err != nil { // the broker knows one partition still
		t.Fatal(err)
	}
	poll.Until(t, "three partitions", func() bool {
		all, err := admin.DescribeTopics([]string{dead})
		return err == nil && len(all) == 1 && len(all[0].Partitions) == 3
	})
	if err := b.Purge(t.Context(), place, last); !errors.Is(err, pubsub.ErrConflict) || !strings.Contains(err.Error(), dead) {
		t.Error(err)
	}
	are(2)
}
