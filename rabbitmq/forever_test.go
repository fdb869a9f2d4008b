package rabbitmq_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// What is to wait for ever, as it is published or for a retry, does not come before what is to wait for a moment.
func TestForeverIsNotAtOnce(t *testing.T) {
	const moment = 500 * time.Millisecond
	s := startServer(t, "default")
	b := s.open(t, nil, nil)
	done := make(chan struct{})
	var mu sync.Mutex
	calls := map[string]int{}
	sub := pubsub.Subscription{Topic: "endless", Group: "g", Order: pubsub.OrderNone, Concurrency: 1}
	_, err := b.Subscribe(t.Context(), sub, func(_ context.Context, d *pubsub.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		calls[d.ID]++
		switch {
		case d.ID == "retried":
			return pubsub.RetryAfter(pubsub.Forever, errors.New("not today"))
		case d.ID == "last" && calls[d.ID] == 1:
			return pubsub.RetryAfter(moment, errors.New("not now"))
		case d.ID == "last":
			close(done)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []pubsub.Message{{ID: "delayed", Delay: pubsub.Forever}, {ID: "retried"}, {ID: "last", Delay: moment}} {
		if err := b.Publish(t.Context(), "endless", m); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Error("what was to wait for a moment did not come")
	}
	mu.Lock()
	defer mu.Unlock()
	if calls["delayed"] != 0 || calls["retried"] != 1 {
		t.Errorf("the handler was called %v", calls)
	}
}
