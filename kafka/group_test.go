package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A tally counts what a handler gets.
type tally struct {
	mu   sync.Mutex
	seen map[string]int
}

func (c *tally) handle(_ context.Context, d *pubsub.Delivery) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = map[string]int{}
	}
	c.seen[string(d.Payload)]++
	return nil
}

func (c *tally) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.seen)
}

func publish(t *testing.T, b *pubsub.Broker, topic string, from, to int) {
	t.Helper()
	var list []pubsub.Message
	for i := from; i < to; i++ {
		list = append(list, pubsub.Message{Payload: fmt.Append(nil, i)})
	}
	if err := b.PublishBatch(t.Context(), topic, list); err != nil {
		t.Fatal(err)
	}
}

// TestReadCommitted reads a topic into which another client writes transactions: what is aborted does not come, and the group gets past the markers.
func TestReadCommitted(t *testing.T) {
	s := startServer(t, "default")
	b := s.open(t)
	topic := unique("transactions")
	var c tally
	sub := pubsub.Subscription{Topic: topic, Group: "g"}
	if _, err := b.Subscribe(t.Context(), sub, c.handle); err != nil {
		t.Fatal(err)
	}
	conf, addresses, err := s.client(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	conf.Producer.RequiredAcks, conf.Producer.Idempotent, conf.Net.MaxOpenRequests = sarama.WaitForAll, true, 1
	conf.Producer.Return.Successes, conf.Producer.Transaction.ID = true, topic
	p, err := sarama.NewSyncProducer(addresses, conf)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for i := range 6 {
		if err := p.BeginTxn(); err != nil {
			t.Fatal(err)
		}
		for k := range 10 {
			kind := "aborted"
			if i%2 == 0 {
				kind = "committed"
			}
			if _, _, err := p.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(fmt.Sprint(kind, i, k))}); err != nil {
				t.Fatal(err)
			}
		}
		end := p.CommitTxn
		if i%2 == 1 {
			end = p.AbortTxn
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
	}
	publish(t, b, topic, 0, 5)
	poll.Until(t, "what was committed", func() bool { return c.count() == 35 })
	for text, n := range c.seen {
		if n > 1 || text[0] == 'a' {
			t.Errorf("%q came %d times", text, n)
		}
	}
	poll.Until(t, "a lag of 0, markers passed", func() bool {
		lag, err := b.Lag(t.Context(), topic, "g")
		return err == nil && lag.Messages == 0
	})
}

// TestStaticMember ends a member that has a name and lets it come back: the group does not notice. Another one of that name ends the first.
func TestStaticMember(t *testing.T) {
	s := startServer(t, "default")
	topic := unique("static")
	open := func() *pubsub.Broker {
		b, err := kafka.Open(t.Context(), s.address(t, url.Values{"instance": {"one"}}), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		return b
	}
	first := open()
	sub := pubsub.Subscription{Topic: topic, Group: "g"}
	var c tally
	if _, err := first.Subscribe(t.Context(), sub, c.handle); err != nil {
		t.Fatal(err)
	}
	publish(t, first, topic, 0, 20)
	poll.Until(t, "all", func() bool { return c.count() == 20 })
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := open()
	began := time.Now()
	one, err := second.Subscribe(t.Context(), sub, c.handle)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, second, topic, 20, 40)
	poll.Until(t, "all", func() bool { return c.count() == 40 })
	if took := time.Since(began); took > 2500*time.Millisecond { // the session that it left takes 3 s to end
		t.Errorf("coming back took %v", took)
	}
	third := open()
	if _, err := third.Subscribe(t.Context(), sub, c.handle); err != nil {
		t.Fatal(err)
	}
	select {
	case <-one.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("a member goes on although another one has its name")
	}
	if err := one.Err(); !errors.Is(err, pubsub.ErrConflict) {
		t.Errorf("it ended with %v, want a conflict", err)
	}
	publish(t, third, topic, 40, 60)
	poll.Until(t, "all", func() bool { return c.count() == 60 })
}

// TestStuckHandlerIsLeftBehind lets a handler hang for ever in the partition that the next member is to have: that one gets it when the group's AckWait is
// over, and the other partitions meanwhile.
func TestStuckHandlerIsLeftBehind(t *testing.T) {
	const parts = 4
	s := startServer(t, "default")
	a, b := s.open(t), s.open(t)
	topic := unique("stuck")
	sub := pubsub.Subscription{Topic: topic, Group: "g", Concurrency: 4, AckWait: 3 * time.Second}
	spec := pubsub.TopicSpec{Name: topic, Partitions: parts}
	if err := a.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{spec}, Groups: []pubsub.Subscription{sub}}); err != nil {
		t.Fatal(err)
	}
	keys := make([]string, parts) // one for each partition
	for i := 0; slices.Contains(keys, ""); i++ {
		key := fmt.Sprint("key", i)
		keys[kafka.PartitionOf(key, parts)] = key
	}
	release, hangs := make(chan struct{}), make(chan struct{})
	defer close(release)
	var atA, atB tally
	_, err := a.Subscribe(t.Context(), sub, func(ctx context.Context, d *pubsub.Delivery) error {
		if string(d.Payload) == "hangs" {
			close(hangs)
			<-release // whatever ctx says
			return nil
		}
		return atA.handle(ctx, d)
	})
	if err != nil {
		t.Fatal(err)
	}
	last := keys[parts-1] // a member keeps the first ones
	if err := a.Publish(t.Context(), topic, pubsub.Message{Key: last, Payload: []byte("hangs")}); err != nil {
		t.Fatal(err)
	}
	<-hangs
	if _, err := b.Subscribe(t.Context(), sub, atB.handle); err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		if err := b.Publish(t.Context(), topic, pubsub.Message{Key: keys[i%parts], Payload: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	poll.Until(t, "what is in the other partitions", func() bool { return atA.count()+atB.count() >= 30 })
	poll.Until(t, "everything, that which hung included", func() bool { return atA.count()+atB.count() == 41 })
	if atB.seen["hangs"] != 1 {
		t.Error("the other member has not got what hung")
	}
}
