package rabbitmq_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/rabbitmq"
)

// settle ends the lease of one record, which must be ours.
func settle(t *testing.T, src pubsub.Source, s pubsub.Settlement) {
	t.Helper()
	errs := make([]error, 1)
	if err := src.Settle(t.Context(), []pubsub.Settlement{s}, errs); err != nil || errs[0] != nil {
		t.Fatal(err, errs[0])
	}
}

// openDriver opens a driver of the test's own.
func (s *server) openDriver(t *testing.T) pubsub.Driver {
	t.Helper()
	d, err := s.driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	return d
}

// What is settled behind a message that is held for long is kept no longer, and is settled at the broker all the same.
func TestParkedMessage(t *testing.T) {
	const n = 200
	s := startServer(t, "default")
	d := s.openDriver(t)
	spec := pubsub.SourceSpec{From: pubsub.Place{Topic: "parked", Group: "g"}, Order: pubsub.OrderNone, AckWait: time.Minute, MaxInFlight: 10, MaxInFlightBytes: 1 << 20, Member: "m"}
	src := source(t, d, spec)
	b := s.open(t, nil, nil)
	var all []string
	for i := range n {
		all = append(all, fmt.Sprint(i))
	}
	publish(t, b, "parked", all...)
	got := recv(t, src, 3)
	parked, second := got[0], got[2]
	settle(t, src, pubsub.Settlement{Token: got[1].Token, As: pubsub.SettleAck})
	for i := 3; i < n; i++ {
		r := recv(t, src, 1)[0]
		settle(t, src, pubsub.Settlement{Token: r.Token, As: pubsub.SettleAck})
	}
	if held := rabbitmq.Held(src); held != 2 {
		t.Errorf("%d deliveries are kept, and 2 are not settled", held)
	}
	settle(t, src, pubsub.Settlement{Token: parked.Token, As: pubsub.SettleAck})
	if err := src.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := src.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	publish(t, b, "parked", "last")
	src = source(t, d, spec)
	left := ids(recv(t, src, 2))
	if slices.Sort(left); !slices.Equal(left, []string{second.Msg.ID, "last"}) {
		t.Errorf("%q came, want the only one that was not settled, %s, and the last", left, second.Msg.ID)
	}
	if err := src.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A copy for which there is no room goes once there is, and the subscription lives on.
func TestRefusedCopy(t *testing.T) {
	const most = 100
	s := ownServer(t, "default")
	d := s.openDriver(t)
	spec := pubsub.SourceSpec{From: pubsub.Place{Topic: "refused", Group: "g"}, Order: pubsub.OrderNone, AckWait: time.Minute, MaxInFlight: most, MaxInFlightBytes: 1 << 20, Member: "m"}
	src := source(t, d, spec)
	b := s.open(t, nil, nil)
	s.ctl(t, "set_policy", "--apply-to", "queues", "full", `^omnibus\.wait\.`, `{"max-length":1}`)
	sent, back := 0, 0
	for ; rabbitmq.Refused(src) < 3; sent++ { // a quorum queue counts a little late
		if sent == most {
			t.Fatalf("%d copies found room", most)
		}
		publish(t, b, "refused", fmt.Sprint(sent))
		r := recv(t, src, 1)[0]
		if r.Failed > 0 {
			t.Fatalf("%s is back before there was a refusal", r.Msg.ID)
		}
		settle(t, src, pubsub.Settlement{Token: r.Token, As: pubsub.SettleRetryIn, Delay: 6400 * time.Millisecond, Failed: 1})
		if err := src.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s.ctl(t, "clear_policy", "full")
	for _, r := range recv(t, src, sent) {
		if r.Failed == 1 && r.Deliveries == 1 {
			back++
		}
	}
	if back != sent {
		t.Errorf("%d of %d messages came back as copies", back, sent)
	}
	if err := src.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A message whose copy the server would not take comes again itself, when its delay is over.
func TestCopyTooLarge(t *testing.T) {
	const delay = 500 * time.Millisecond
	s := ownServer(t, "default")
	d := s.openDriver(t)
	src := source(t, d, pubsub.SourceSpec{From: pubsub.Place{Topic: "grown", Group: "g"}, Order: pubsub.OrderNone, AckWait: time.Minute, MaxInFlight: 10, MaxInFlightBytes: 1 << 20, Member: "m"})
	b := s.open(t, nil, nil)
	if err := b.Publish(t.Context(), "grown", pubsub.Message{ID: "large", Payload: make([]byte, 20_000)}); err != nil {
		t.Fatal(err)
	}
	s.ctl(t, "eval", "application:set_env(rabbit, max_message_size, 10000), persistent_term:put(max_message_size, 10000).")
	for delivery := range int32(3) { // the first one ends the channel, which tells the limit
		r := recv(t, src, 1)[0]
		if r.Deliveries != delivery+1 {
			t.Errorf("delivery %d says %d", delivery+1, r.Deliveries)
		}
		begin := time.Now()
		settle(t, src, pubsub.Settlement{Token: r.Token, As: pubsub.SettleRetryIn, Delay: delay, Failed: delivery + 1})
		publish(t, b, "grown", "small")
		small := recv(t, src, 1)[0]
		settle(t, src, pubsub.Settlement{Token: small.Token, As: pubsub.SettleAck})
		if took := time.Since(begin); small.Msg.ID != "small" && took < delay {
			t.Errorf("%s came after %v", small.Msg.ID, took)
		}
	}
	if err := src.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A copy in the quarantine is counted as what it was: each failure was a delivery, and what its process does not survive is one more.
func TestQuarantinedCopy(t *testing.T) {
	s := startServer(t, "default")
	if err := s.open(t, nil, nil).Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{{Topic: "suspect", Group: "g"}}}); err != nil {
		t.Fatal(err)
	}
	spec := pubsub.SourceSpec{
		From: pubsub.Place{Topic: "suspect", Group: "g", Kind: pubsub.PlaceQuarantine}, AckWait: time.Minute, MaxInFlight: 1, MaxInFlightBytes: 1 << 20, Member: "m",
	}
	d := s.openDriver(t)
	src := source(t, d, spec)
	s.must(t, func(ch *amqp.Channel) error {
		return ch.PublishWithContext(t.Context(), "", "omnibus.quarantine.suspect__g", true, false, amqp.Publishing{MessageId: "x", Body: []byte("x")})
	})
	for failed := range int32(3) {
		r := recv(t, src, 1)[0]
		if r.Failed != failed || r.Deliveries != failed+1 {
			t.Errorf("after %d failures it is delivery %d, with %d failures", failed, r.Deliveries, r.Failed)
		}
		settle(t, src, pubsub.Settlement{Token: r.Token, As: pubsub.SettleRetryIn, Delay: 100 * time.Millisecond, Failed: failed + 1})
	}
	recv(t, src, 1)
	if err := src.Close(t.Context()); err != nil { // which is for the broker what a death is
		t.Fatal(err)
	}
	src = source(t, d, spec)
	if r := recv(t, src, 1)[0]; r.Failed != 3 || r.Deliveries != 5 {
		t.Errorf("after 3 failures and a death it is delivery %d, with %d failures", r.Deliveries, r.Failed)
	}
	if err := src.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
