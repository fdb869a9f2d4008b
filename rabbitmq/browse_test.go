package rabbitmq_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Browsing shows all that was confirmed when it began, however busy the broker is: the end of a stream is not where nothing came in time. It ends although more
// is stored all the time.
func TestBrowseToTheEnd(t *testing.T) {
	s := startServer(t, "default")
	b := s.open(t, nil, nil)
	var stored, browsed atomic.Int64
	sub := pubsub.Subscription{Topic: "browsed", Group: "g", Order: pubsub.OrderNone, Concurrency: 4}
	sub.DeadLetter.OnDeadLetter = func(*pubsub.Delivery, error) { stored.Add(1) }
	_, err := b.Subscribe(t.Context(), sub, func(context.Context, *pubsub.Delivery) error { return pubsub.Permanent(errors.New("to be kept")) })
	if err != nil {
		t.Fatal(err)
	}
	var all, busy sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		busy.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					publish(t, b, "browsed", strconv.Itoa(i))
				}
			}
		})
	}
	poll.Until(t, "some dead letters", func() bool { return stored.Load() > 100 })
	end := time.Now().Add(5 * time.Second)
	for range 8 {
		all.Go(func() {
			for time.Now().Before(end) && !t.Failed() {
				least, n, last := stored.Load(), int64(0), pubsub.Position{}
				for r, err := range b.Browse(t.Context(), pubsub.Place{Topic: "browsed", Group: "g", Kind: pubsub.PlaceDead}, pubsub.Position{}) {
					if err != nil {
						t.Error(err)
						return
					}
					if n++; r.Pos == last {
						t.Errorf("two dead letters are at %v", r.Pos)
					}
					last = r.Pos
				}
				if n < least {
					t.Errorf("%d dead letters were confirmed, and %d are shown", least, n)
				}
				browsed.Add(1)
			}
		})
	}
	all.Wait()
	close(stop)
	busy.Wait()
	t.Logf("%d dead letters, browsed %d times", stored.Load(), browsed.Load())
}
