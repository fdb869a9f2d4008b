package nats_test

import (
	"context"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A message that was long on its way has less of its lease than AckWait from its arrival. Handing it back when the server has given it to
// someone else would take it away from there.
func TestLeaseEndsBeforeTheServerSays(t *testing.T) {
	const ackWait = 2 * time.Second
	s := startServer(t, "default")
	b := s.open(t)
	spec := pubsub.SourceSpec{
		From: pubsub.Place{Topic: "orders", Group: "g"}, Start: pubsub.FromEarliest(), Order: pubsub.OrderNone, AckWait: ackWait,
		MaxInFlight: 1, MaxInFlightBytes: 1 << 20, Manage: pubsub.Create,
	}
	open := func(member string) pubsub.Source {
		d, err := s.driver(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
		spec.Member = member
		src, err := d.OpenSource(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = src.Close(context.WithoutCancel(t.Context())) })
		return src
	}
	recv := func(src pubsub.Source) pubsub.Record {
		var buf [1]pubsub.Record
		for {
			n, _, err := src.Recv(t.Context(), buf[:], 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if n == 1 {
				return buf[0]
			}
		}
	}
	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "orders"}}}); err != nil {
		t.Fatal(err)
	}
	late := open("late")
	if err := b.Publish(t.Context(), "orders", pubsub.Message{Payload: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	slow := recv(late)
	if left := time.Until(slow.LeaseUntil); left > ackWait*9/10 {
		t.Errorf("%v after it has come a message has %v of an ack wait of %v: nobody knows for how long it was on its way", ackWait, left, ackWait)
	}
	next := open("next")
	held := recv(next) // the server's lease of late is over
	errs := make([]error, 1)
	if err := late.Settle(t.Context(), []pubsub.Settlement{{Token: slow.Token, As: pubsub.SettleRelease}}, errs); err != nil || errs[0] == nil {
		t.Errorf("handing back what another one has: %v, %v; want a lost lease", err, errs[0])
	}
	errs[0] = nil
	if err := next.Settle(t.Context(), []pubsub.Settlement{{Token: held.Token, As: pubsub.SettleAck}}, errs); err != nil || errs[0] != nil {
		t.Errorf("settling what is held: %v, %v", err, errs[0])
	}
}
