package middleware_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// failure is an error with a type of its own.
type failure struct{ text string }

func (f failure) Error() string { return f.text }

var errFailed = failure{"failed"}

func layers(ls ...pubsub.Middleware) []pubsub.Middleware { return ls }

// opts are the options of a Broker with these layers.
func opts(ls ...pubsub.Middleware) *pubsub.Options { return &pubsub.Options{Use: ls} }

func message(id string) pubsub.Message { return pubsub.Message{ID: id, Payload: []byte(id)} }

// fixed is a policy without jitter.
func fixed(attempts int, delay time.Duration) pubsub.Policy {
	return pubsub.Policy{MaxAttempts: attempts, Delays: []time.Duration{delay}}
}

// wrap puts layers around h as the engine does, the first outermost, without an engine: for what is about the layer alone.
func wrap(h pubsub.Handler, ls ...pubsub.Middleware) pubsub.Handler {
	for _, l := range slices.Backward(ls) {
		if l.Incoming != nil {
			h = l.Incoming(h)
		}
	}
	return h
}

// A tally counts by name. Safe for concurrent use.
type tally struct {
	mu sync.Mutex
	n  map[string]int
}

func (t *tally) add(name string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = map[string]int{}
	}
	t.n[name]++
	return t.n[name]
}

func (t *tally) of(name string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n[name]
}

func (t *tally) total() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range t.n {
		n += k
	}
	return n
}

// drained is the context of a message that a consumer has handed back: its Receive loop was left.
func drained(t *testing.T) context.Context {
	t.Helper()
	b := memory.New(nil)
	defer b.Close()
	loop, err := b.Receive(t.Context(), pubsub.Subscription{Topic: "t", Group: "g"})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), "t", pubsub.Message{}); err != nil {
		t.Fatal(err)
	}
	for lease, err := range loop {
		if err != nil {
			t.Fatal(err)
		}
		return lease.Context() // which leaves the loop
	}
	t.Fatal("no message came")
	return nil
}

// late is a context whose deadline, a layer's own, is over.
func late(ctx context.Context, t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, -1)
	t.Cleanup(cancel)
	return ctx
}

// canceled is a context that a layer has canceled for a reason of its own.
func canceled(t *testing.T, reason error) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	return ctx
}
