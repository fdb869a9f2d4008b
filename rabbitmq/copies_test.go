package rabbitmq_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

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
