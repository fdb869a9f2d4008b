package pubsub_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// TestLongestTTL: what is never to be dropped is not dropped at once.
func TestLongestTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		got := make(chan pubsub.Message, 1)
		_, err := b.Subscribe(t.Context(), pubsub.Subscription{Topic: "t", Group: "g"}, func(_ context.Context, d *pubsub.Delivery) error {
			got <- d.Message
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), "t", pubsub.Message{TTL: pubsub.Forever}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case m := <-got:
			if m.TTL != pubsub.Forever {
				t.Errorf("it came with a TTL of %v", m.TTL)
			}
		default:
			t.Error("it was dropped")
		}
	})
}

// TestForeverIsLong: a policy that waits for ever does not come out at less than nothing.
func TestForeverIsLong(t *testing.T) {
	t.Parallel()
	const century = 36_500 * 24 * time.Hour
	for name, p := range map[string]pubsub.Policy{
		"first delay": {Initial: pubsub.Forever, MaxAttempts: 5},
		"no longest":  {Initial: time.Hour, Max: pubsub.Forever, Factor: 1e6, MaxAttempts: 9},
		"list":        {Delays: []time.Duration{pubsub.Forever, pubsub.Forever}, MaxAttempts: 9},
	} {
		if mean, longest := p.Span(); mean < century/2 || longest < century {
			t.Errorf("%s: retried for %v on average, %v at most", name, mean, longest)
		}
	}
}

// TestRetryInForever: a handler that wants its message again after an endless time gets it no sooner.
func TestRetryInForever(t *testing.T) {
	for name, outcome := range map[string]error{"retry": pubsub.RetryAfter(pubsub.Forever, errors.New("no")), "snooze": pubsub.Snooze(pubsub.Forever, errors.New("later"))} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := memory.New(nil)
				defer b.Close()
				calls := 0
				sub := pubsub.Subscription{Topic: "t", Group: "g", Retry: pubsub.Policy{MaxElapsed: time.Hour}}
				if name == "snooze" {
					sub.Retry.MaxElapsed = 0
				}
				dead := make(chan error, 1)
				sub.DeadLetter.OnDeadLetter = func(_ *pubsub.Delivery, err error) { dead <- err }
				_, err := b.Subscribe(t.Context(), sub, func(context.Context, *pubsub.Delivery) error {
					calls++
					time.Sleep(time.Millisecond) // of the virtual kind
					return outcome
				})
				if err != nil {
					t.Fatal(err)
				}
				if err := b.Publish(t.Context(), "t", pubsub.Message{}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(24 * time.Hour)
				synctest.Wait()
				if given := len(dead) > 0; calls != 1 || given != (name == "retry") { // an hour is over before the retry is due
					t.Errorf("called %d times, given up: %v", calls, given)
				}
			})
		})
	}
}
