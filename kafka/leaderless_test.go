package kafka_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

// TestPartitionWithoutLeader kills the only broker that has one of three partitions, for longer than a member may be silent: who reads the others goes on, in one
// session, and what is in that partition comes when the broker is back.
func TestPartitionWithoutLeader(t *testing.T) {
	const session = 6 * time.Second // longer than the cluster takes to give a broker up
	s := &server{Broker: containers.OwnForTest(t, "kafka", "cluster"), tokens: t.TempDir()}
	var broken atomic.Value
	watch := pubsub.Middleware{Name: "watch", Observe: func(ev pubsub.Event) {
		if ev.Kind == pubsub.EventDisconnected {
			broken.CompareAndSwap(nil, fmt.Sprint(ev.Err))
		}
	}}
	address := s.address(t, url.Values{"durability": {"process"}, "session_timeout": {session.String()}})
	b, err := kafka.Open(t.Context(), address, &pubsub.Options{Use: []pubsub.Middleware{watch}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	sub := pubsub.Subscription{Topic: unique("leaderless"), Group: "g"}
	admin, err := s.admin(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close() }()
	one := "1"
	if err := admin.CreateTopic(sub.Topic, &sarama.TopicDetail{NumPartitions: 3, ReplicationFactor: 1, ConfigEntries: map[string]*string{"min.insync.replicas": &one}}, false); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // a cluster that has just started takes its time
	defer cancel()
	if err := b.Ensure(ctx, pubsub.Topology{Groups: []pubsub.Subscription{sub}}); err != nil {
		t.Fatal(err)
	}
	var c tally
	if _, err := b.Subscribe(t.Context(), sub, c.handle); err != nil {
		t.Fatal(err)
	}

	conf, addresses, err := s.client(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	client, err := sarama.NewClient(addresses, conf)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	coordinator, err := client.Coordinator(kafka.GroupID(pubsub.Place{Topic: sub.Topic, Group: sub.Group}))
	if err != nil {
		t.Fatal(err)
	}
	lost, leader := int32(-1), int32(-1)
	for p := range int32(3) {
		if at, err := client.Leader(sub.Topic, p); err != nil {
			t.Fatal(err)
		} else if at.ID() != coordinator.ID() {
			lost, leader = p, at.ID()
		}
	}
	keys := make([]string, 3)
	for i := 0; slices.Contains(keys, ""); i++ {
		key := fmt.Sprint("key", i)
		keys[kafka.PartitionOf(key, 3)] = key
	}
	sent := 0
	send := func(p int32) {
		t.Helper()
		if err := b.Publish(t.Context(), sub.Topic, pubsub.Message{Key: keys[p], Payload: fmt.Append(nil, sent)}); err != nil {
			t.Fatal(err)
		}
		sent++
	}
	for p := range int32(3) {
		send(p)
	}
	poll.Until(t, "what is in all partitions", func() bool { return c.count() == sent })

	node := s.Nodes()[leader] // kafka-0 is the first
	if name := fmt.Sprintf("kafka-%d", leader); node.Name() != name {
		t.Fatalf("node %d is %s, not %s", leader, node.Name(), name)
	}
	if err := node.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5*time.Second + session + 3*time.Second); time.Now().Before(end) && broken.Load() == nil; {
		send((lost + 1) % 3)
		send((lost + 2) % 3)
		poll.Until(t, "what is in the other partitions", func() bool { return c.count() == sent })
	}
	if why := broken.Load(); why != nil {
		t.Errorf("the session ended: %v", why)
	}
	if err := node.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	send(lost)
	poll.Until(t, "what is in the partition whose leader is back", func() bool { return c.count() == sent })
}

// TestDeadLeaderIsAskedForSeldom lets the cluster name a leader that is gone, as it does until it has found that out: it is not asked without a pause.
func TestDeadLeaderIsAskedForSeldom(t *testing.T) {
	f := newFake(t)
	d, _, _ := f.producer(t, kafka.Config{})
	gone, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	f.answer(nil, f.metadata().SetBroker(gone.Addr().String(), 2).SetLeader(outletTopic, 0, 2))
	before := f.asked()
	kafka.Follow(t.Context(), d, outletTopic, time.Second)
	if n := f.asked() - before; n < 2 || n > 20 {
		t.Errorf("in a second it was asked %d times who leads", n)
	}
}

// asked is how often somebody asked for metadata.
func (f *fake) asked() (n int) {
	for _, h := range f.mock.History() {
		if _, ok := h.Request.(*sarama.MetadataRequest); ok {
			n++
		}
	}
	return n
}
