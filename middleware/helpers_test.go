package middleware_test

import (
	"slices"
	"sync"
	"time"

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
