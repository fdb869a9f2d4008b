package pubsubtest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/pubsubtest"
)

// A handler that charges a card, and how it is subscribed.
var (
	errDeclined  = errors.New("card declined")
	subscription = pubsub.Subscription{
		Topic: "orders", Group: "billing",
		Retry: pubsub.Policy{MaxAttempts: 3, Delays: []time.Duration{time.Millisecond}},
		Rules: []pubsub.Rule{{Category: "declined", When: func(err error) bool { return errors.Is(err, errDeclined) }, Retry: pubsub.Policy{MaxAttempts: 1}}},
	}
)

func decline(context.Context, *pubsub.Delivery) error { return errDeclined }

// A placer publishes invoices, and publishes one again whose fate is unknown.
type placer struct{ pubsub.Publisher }

func (p placer) place(ctx context.Context, id string) error {
	m := pubsub.Message{ID: id, Type: "invoice", Payload: fmt.Appendf(nil, `{"order":%q,"cents":1999}`, id)}
	err := p.Publish(ctx, "invoices", m)
	if errors.Is(err, pubsub.ErrUnconfirmed) {
		err = p.Publish(ctx, "invoices", m)
	}
	return err
}

// In a test t is the test's, in synctest.Test if the delays are longer than here.
func ExampleDeliver() {
	t := newT()
	defer t.end()
	calls := 0
	bill := func(_ context.Context, d *pubsub.Delivery) error {
		if calls++; calls < 3 {
			return errors.New("gateway is down")
		}
		return nil
	}
	fate := pubsubtest.Deliver(t, subscription, bill, pubsub.Message{Payload: []byte(`{"cents":1999}`)})
	fmt.Println(fate.Acked, fate.Attempts)
	// Output: true 3
}

// Expecting that a message is given up, why, and what is kept of it.
func ExampleFate_Want() {
	t := newT()
	defer t.end()
	fate := pubsubtest.Deliver(t, subscription, decline, pubsub.Message{Key: "c-42", Payload: []byte(`{"cents":1999}`)})
	fate.Want(t, pubsubtest.Fate{
		Attempts: 1,
		Err:      errDeclined,
		Reason:   "max-attempts",
		Category: "declined",
		DeadLetter: &pubsub.Message{
			Key:     "c-42",
			Payload: []byte(`{"cents": 1999}`),
			Headers: pubsub.Headers{{Name: "omnibus-dlq-error", Value: "card declined"}},
		},
	})
	// Output:
}

// Payloads are compared as JSON, headers by name, and only what is set.
func ExampleWantMessages() {
	t := newT()
	defer t.end()
	published := []pubsub.Message{
		{ID: "1", Type: "order.placed", Key: "c-42", Payload: []byte(`{"id":"o-1","cents":1999}`)},
		{ID: "2", Type: "order.placed", Key: "c-7", Payload: []byte(`{"id":"o-2","cents":500}`), Headers: pubsub.Headers{{Name: "tenant", Value: "acme"}}},
	}
	pubsubtest.WantMessages(t, published,
		pubsub.Message{Type: "order.placed", Payload: []byte(`{"cents": 1999, "id": "o-1"}`)},
		pubsub.Message{Key: "c-8", Payload: []byte(`{"id": "o-2", "cents": 501}`), Headers: pubsub.Headers{{Name: "tenant", Value: "acme"}}},
		pubsub.Message{Type: "order.shipped"},
	)
	// Output:
	// messages are not as expected (- expected, + got): got 2, expected 3
	//   message 1 of 3 is as expected
	//   message 2 of 3 differs:
	//     - key: c-8
	//     + key: c-7
	//       header tenant: acme
	//       payload:
	//         {
	//       -   "cents": 501,
	//       +   "cents": 500,
	//           "id": "o-2"
	//         }
	//   message 3 of 3 is missing:
	//     - type: order.shipped
}

// A recorder for code that publishes: the Broker is the Publisher.
func ExampleOpen() {
	t := newT()
	defer t.end()
	b := pubsubtest.Open(t, nil, "invoices")
	if err := (placer{b}).place(t.Context(), "o-1"); err != nil {
		t.Errorf("%v", err)
	}
	pubsubtest.WantMessages(t, b.Published("invoices"),
		pubsub.Message{ID: "o-1", Type: "invoice", Payload: []byte(`{"order": "o-1", "cents": 1999}`)})
	// Output:
}

// The second message is refused. (One that stays unconfirmed takes its time, so that is for a bubble.)
func ExampleBroker_FailPublish() {
	t := newT()
	defer t.end()
	b := pubsubtest.Open(t, nil, "invoices")
	b.FailPublish(2, pubsub.ErrExhausted)
	for _, id := range []string{"o-1", "o-2", "o-3"} {
		fmt.Println(id, errors.Is(placer{b}.place(t.Context(), id), pubsub.ErrExhausted))
	}
	fmt.Println(len(b.Published("invoices")), "stored")
	// Output:
	// o-1 false
	// o-2 true
	// o-3 false
	// 2 stored
}

// A middleware in both directions: the handler sees what was published, the wire what the middleware made of it.
func ExampleBroker_Deliver() {
	t := newT()
	defer t.end()
	reverse := func(b []byte) []byte { b = slices.Clone(b); slices.Reverse(b); return b }
	b := pubsubtest.Open(t, &pubsub.Options{Use: []pubsub.Middleware{{
		Name: "reverse",
		Outgoing: func(_ context.Context, _ string, m *pubsub.Message) error {
			m.Payload = reverse(m.Payload)
			return nil
		},
		Incoming: func(next pubsub.Handler) pubsub.Handler {
			return func(ctx context.Context, d *pubsub.Delivery) error {
				d.Payload = reverse(d.Payload)
				return next(ctx, d)
			}
		},
	}}})
	b.Deliver(subscription, func(_ context.Context, d *pubsub.Delivery) error {
		fmt.Printf("handled %s\n", d.Payload)
		return nil
	}, pubsub.Message{Payload: []byte("tea")}, pubsub.Message{Payload: []byte("milk")})
	for _, m := range b.Published("orders") {
		fmt.Printf("on the wire %s\n", m.Payload)
	}
	// Output:
	// handled tea
	// handled milk
	// on the wire aet
	// on the wire klim
}

// A handler of batches that gives each message a verdict.
func ExampleBroker_DeliverBatch() {
	t := newT()
	defer t.end()
	fates := pubsubtest.Open(t, nil).DeliverBatch(subscription, pubsub.Batch{Max: 2}, func(_ context.Context, batch []*pubsub.Delivery) error {
		errs := make([]error, len(batch))
		for i, d := range batch {
			if len(d.Payload) == 0 {
				errs[i] = pubsub.Permanent(errors.New("empty"))
			}
		}
		return &pubsub.BatchError{Errs: errs}
	}, pubsub.Message{Payload: []byte("tea")}, pubsub.Message{})
	for _, f := range fates {
		fmt.Printf("acked: %v, reason: %q\n", f.Acked, f.Reason)
	}
	// Output:
	// acked: true, reason: ""
	// acked: false, reason: "permanent"
}

// A service that publishes in turn: wait until all of it is done, then look. That it stops cleanly is checked when the test ends.
func ExampleBroker_WaitIdle() {
	t := newT()
	defer t.end()
	b := pubsubtest.Open(t, nil, "invoices")
	running, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	bill := func(ctx context.Context, d *pubsub.Delivery) error { return placer{b}.place(ctx, string(d.Payload)) }
	if _, err := b.Subscribe(running, subscription, bill); err != nil {
		t.Fatalf("%v", err)
	}
	go func() { ended <- b.Run(running) }()

	if err := b.Publish(t.Context(), "orders", pubsub.Message{Payload: []byte("o-1")}); err != nil {
		t.Errorf("%v", err)
	}
	b.WaitIdle()
	pubsubtest.WantMessages(t, b.Published("invoices"), pubsub.Message{ID: "o-1"})
	stop()
	fmt.Println(<-ended)
	// Output: <nil>
}

// The dead letters that a group keeps say what happened in their headers.
func ExampleBroker_DeadLetters() {
	t := newT()
	defer t.end()
	b := pubsubtest.Open(t, nil)
	b.Deliver(subscription, decline, pubsub.Message{Payload: []byte("tea")})
	pubsubtest.WantMessages(t, b.DeadLetters("orders", "billing"), pubsub.Message{
		Payload: []byte("tea"),
		Headers: pubsub.Headers{{Name: "omnibus-dlq-category", Value: "declined"}, {Name: "omnibus-dlq-attempts", Value: "1"}},
	})
	// Output:
}

// A printingT stands for the t of a test, which examples have not: it prints what the test would be told.
type printingT struct {
	testing.TB

	cleanups []func()
}

func newT() *printingT { return &printingT{} }

func (*printingT) Helper()                           {}
func (*printingT) Name() string                      { return "Example" }
func (*printingT) Context() context.Context          { return context.Background() }
func (p *printingT) Cleanup(f func())                { p.cleanups = append(p.cleanups, f) }
func (*printingT) Error(args ...any)                 { fmt.Println(args...) }
func (*printingT) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (*printingT) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (p *printingT) end() {
	for _, f := range slices.Backward(p.cleanups) {
		f()
	}
}
