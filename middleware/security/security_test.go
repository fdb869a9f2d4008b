package security_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// key makes a key, or ends the test.
func key(tb testing.TB, suite security.Suite, id, owner string) security.Key {
	tb.Helper()
	k, err := security.GenerateKey(suite, id, owner)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func ring(tb testing.TB, keys ...security.Key) *security.Keyring {
	tb.Helper()
	r, err := security.NewKeyring(keys...)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func public(tb testing.TB, k security.Key) security.Key {
	tb.Helper()
	p, err := k.Public()
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// send passes a message through the outgoing halves of layers, and returns what is on the wire.
func send(topic string, m pubsub.Message, layers ...pubsub.Middleware) (pubsub.Message, error) {
	m = m.Clone()
	for _, l := range slices.Backward(layers) {
		if l.Err != nil {
			return m, l.Err
		}
		if l.Outgoing == nil {
			continue
		}
		if err := l.Outgoing(context.Background(), topic, &m); err != nil {
			return m, err
		}
	}
	return m, nil
}

func mustSend(tb testing.TB, topic string, m pubsub.Message, layers ...pubsub.Middleware) pubsub.Message {
	tb.Helper()
	wire, err := send(topic, m, layers...)
	if err != nil {
		tb.Fatal(err)
	}
	return wire
}

// A seen is what a handler got.
type seen struct {
	msg      pubsub.Message
	verified security.Verified
}

// receive passes what is on the wire through the incoming halves; nil = no handler saw it.
func receive(ctx context.Context, topic string, wire pubsub.Message, layers ...pubsub.Middleware) (*seen, error) {
	var got *seen
	h := pubsub.Handler(func(ctx context.Context, d *pubsub.Delivery) error {
		v, _ := security.From(ctx)
		got = &seen{d.Message, v}
		return nil
	})
	for _, l := range slices.Backward(layers) {
		if l.Err != nil {
			return nil, l.Err
		}
		if l.Incoming != nil {
			h = l.Incoming(h)
		}
	}
	err := h(ctx, &pubsub.Delivery{Message: wire.Clone(), Topic: topic, Group: "g", Attempt: 1})
	return got, err
}

// wantRefused asserts that nobody sees a message, that it is given up, and why.
func wantRefused(t *testing.T, topic string, wire pubsub.Message, why security.Refusal, layers ...pubsub.Middleware) {
	t.Helper()
	got, err := receive(t.Context(), topic, wire, layers...)
	if got != nil {
		t.Errorf("a handler saw %+v", got.msg)
	}
	if !errors.Is(err, why) {
		t.Errorf("it is refused as %v, want %v", err, why)
	}
	if outcome, _ := pubsub.OutcomeOf(err); outcome != pubsub.OutcomePermanent {
		t.Errorf("what is refused as %v is %v, want permanent", err, outcome)
	}
}

// wantPaused asserts that without the layer Sign another one lets nothing pass, and gives nothing up.
func wantPaused(t *testing.T, m pubsub.Message, layer pubsub.Middleware) {
	t.Helper()
	got, err := receive(t.Context(), "orders.placed", m, layer)
	if outcome, _ := pubsub.OutcomeOf(err); got != nil || outcome != pubsub.OutcomePause || !strings.Contains(err.Error(), "Sign") {
		t.Errorf("without Sign the layer %s makes of a message %v, %v: want a pause that names it", layer.Name, got, err)
	}
}
