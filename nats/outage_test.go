package nats_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

// What was confirmed before, while and after the broker is killed arrives, and the program does nothing for it.
func TestBrokerKilledInMidRun(t *testing.T) {
	s := ownServer(t, "default")
	b := s.open(t)
	sub := pubsub.Subscription{Topic: "orders", Group: "g", AckWait: 2 * time.Second}
	if err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{sub}}); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	handled, confirmed := map[string]int{}, map[string]bool{}
	if _, err := b.Subscribe(t.Context(), sub, func(_ context.Context, d *pubsub.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		handled[d.ID]++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for worker := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprintf("%d-%d", worker, i)
				if err := b.Publish(t.Context(), "orders", pubsub.Message{ID: id, Key: id}); err != nil {
					t.Errorf("publish %s: %v", id, err) // it is sent again until the deadline of 30 s
					return
				}
				mu.Lock()
				confirmed[id] = true
				mu.Unlock()
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(handled)
	}
	for round := range 2 {
		before := count()
		poll.Until(t, fmt.Sprintf("200 messages more in round %d", round), func() bool { return count() > before+200 })
		if err := s.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	before := count()
	poll.Until(t, "200 messages after the last restart", func() bool { return count() > before+200 })
	close(stop)
	wg.Wait()
	missing := func() (n int) {
		mu.Lock()
		defer mu.Unlock()
		for id := range confirmed {
			if handled[id] == 0 {
				n++
			}
		}
		return n
	}
	poll.Until(t, "all that was confirmed is handled", func() bool { return missing() == 0 })
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("%d confirmed, %d handled", len(confirmed), len(handled))
}
