package redisstreams_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

// exchange sends a run through a session of its own, and returns the fates.
func exchange(t *testing.T, d pubsub.Driver, run []pubsub.Out) (all []pubsub.Result) {
	t.Helper()
	p, err := d.OpenProducer(t.Context(), pubsub.ProducerSpec{Ack: pubsub.AckDurable, MaxPending: len(run)}, func(r []pubsub.Result) { all = append(all, r...) })
	if err != nil {
		t.Fatal(err)
	}
	if n, err := p.Send(t.Context(), run); n != len(run) || err != nil {
		t.Fatalf("%d were sent: %v", n, err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	return all
}

// outs are messages for a topic with tokens of their own.
func outs(topic string, n int) []pubsub.Out {
	run := make([]pubsub.Out, n)
	for i := range run {
		run[i] = pubsub.Out{Seq: uint64(i), To: pubsub.Place{Topic: topic}, Msg: &pubsub.Message{ID: fmt.Sprint(i)}, Dedup: pubsub.Dedup{1, byte(i), byte(i >> 8)}}
	}
	return run
}

// A run whose confirmations were lost is sent again, and is stored once where the server has idempotence of its own.
func TestSentAgainOnce(t *testing.T) {
	s := startServer(t, "8.6")
	d, err := s.driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	if err := d.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "orders"}}}, pubsub.Create); err != nil {
		t.Fatal(err)
	}
	run := outs("orders", 256)
	first := exchange(t, d, run)
	for i := range run {
		run[i].Again = true
	}
	for range 2 {
		for i, r := range exchange(t, d, run) {
			if r.Fate != pubsub.FateAccepted || r.Pos.String() != first[i].Pos.String() {
				t.Fatalf("message %d is stored at %v; again: %+v", i, first[i].Pos, r)
			}
		}
	}
	if n := s.client(t).XLen(t.Context(), "orders").Val(); n != int64(len(run)) {
		t.Errorf("%d entries, want %d", n, len(run))
	}
	changes := func() string {
		return s.client(t).InfoMap(t.Context(), "persistence").Item("Persistence", "rdb_changes_since_last_save")
	}
	before := changes()
	if exchange(t, d, run); changes() == before {
		t.Errorf("what is known already is not written, so that WAIT does not wait for it: %s changes", before)
	}
}

// An entry with more fields than a script can hand on goes to the dead letters too.
func TestManyFields(t *testing.T) {
	s := startServer(t, "default")
	b := s.open(t)
	mustSubscribe(t, b, pubsub.Subscription{Topic: "orders", Group: "g", Order: pubsub.OrderNone}, func(context.Context, *pubsub.Delivery) error {
		return pubsub.Permanent(errors.New("no"))
	})
	var values []any
	for i := range 10_000 {
		values = append(values, fmt.Sprint("field", i), "value")
	}
	if err := s.client(t).XAdd(t.Context(), &redis.XAddArgs{Stream: "orders", Values: values}).Err(); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the dead letter is there", func() bool { return len(adaptertest.DeadLetters(t, b, "orders", "g")) == 1 })
	if m := adaptertest.DeadLetters(t, b, "orders", "g")[0].Msg; len(m.Headers) < 10_000 || m.Headers.Get("field9999") != "value" {
		t.Errorf("the dead letter has %d headers", len(m.Headers))
	}
	m := pubsub.Message{Delay: time.Second}
	for i := range 5000 {
		m.Headers = append(m.Headers, pubsub.Header{Name: fmt.Sprint("field", i)})
	}
	if err := b.Publish(t.Context(), "orders", m); pubsub.CodeOf(err) != pubsub.ErrTooLarge {
		t.Errorf("with a delay: %v", err)
	}
}

// Messages that are due in the same millisecond come in the order in which they were published.
func TestDueTogetherInOrder(t *testing.T) {
	const messages = 200
	s := startServer(t, "default")
	d, err := s.driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	b := s.open(t)
	var got received
	mustSubscribe(t, b, pubsub.Subscription{Topic: "orders", Group: "g"}, got.handle)
	run := outs("orders", messages)
	for i := range run {
		run[i].Dedup = pubsub.Dedup{}
		run[i].Msg.Delay = 100 * time.Millisecond
	}
	for _, r := range exchange(t, d, run) {
		if r.Fate != pubsub.FateAccepted {
			t.Fatalf("%+v", r)
		}
	}
	for i, m := range got.await(t, messages) {
		if m.ID != fmt.Sprint(i) {
			t.Fatalf("message %d is %s", i, m.ID)
		}
	}
}

// A server that is out of memory refuses a message at once, and ends no consumer: when it has room again that goes on.
func TestFullServer(t *testing.T) {
	s := ownServer(t, "default")
	c, b := s.client(t), s.open(t)
	var got received
	consumer := mustSubscribe(t, b, pubsub.Subscription{Topic: "orders", Group: "g", Order: pubsub.OrderByKey}, got.handle)
	if err := c.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := b.Publish(ctx, "orders", pubsub.Message{}); pubsub.CodeOf(err) != pubsub.ErrExhausted {
		t.Errorf("publishing to a full server: %v", err)
	}
	if err := c.ClientKillByFilter(t.Context(), "TYPE", "normal").Err(); err != nil { // so that the consumer has to take its lane again
		t.Fatal(err)
	}
	select {
	case <-consumer.Done():
		t.Fatalf("the consumer ended: %v", consumer.Err())
	case <-time.After(3 * time.Second): // it tries again meanwhile
	}
	if err := c.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), "orders", pubsub.Message{ID: "1"}); err != nil {
		t.Fatal(err)
	}
	got.await(t, 1)
}
