package middleware_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/pubsubtest"
)

// A Receive loop settles after the layers have let its message pass, and they have their say then.
func TestReceiveLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pubsubtest.Open(t, opts(
			middleware.Compress(0), middleware.Retry(fixed(5, 2*time.Second)), middleware.Poison(middleware.PoisonOptions{}),
			middleware.Breaker(middleware.BreakerOptions{Min: 100}), middleware.Dedup(middleware.DedupOptions{}), middleware.Timeout(time.Second)), "t")
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		valid := middleware.Validate(map[string]func(*pubsub.Message) error{"": notEmpty})
		loop, err := b.Receive(ctx, pubsub.Subscription{Topic: "t", Group: "g", Order: pubsub.OrderNone, Use: layers(valid)})
		if err != nil {
			t.Fatal(err)
		}
		large := message("large")
		large.Payload = make([]byte, 5000)
		for _, m := range []pubsub.Message{message("fine"), message("fine"), {ID: "empty"}, large, message("poison"), message("late"), message("again")} {
			if err := b.Publish(ctx, "t", m); err != nil {
				t.Fatal(err)
			}
		}
		var seen tally
		var last time.Time
		for lease, err := range loop {
			if err != nil {
				t.Fatal(err)
			}
			n := seen.add(lease.ID)
			var outcome error
			switch lease.ID {
			case "large":
				if len(lease.Payload) != 5000 {
					t.Errorf("%d bytes", len(lease.Payload))
				}
			case "poison":
				outcome = errFailed
			case "late":
				<-lease.Context().Done()
				if n < 3 {
					outcome = lease.Context().Err()
				}
			case "again":
				if n > 1 && time.Since(last) < 2*time.Second {
					t.Errorf("again after %v, the layer's policy says 2s", time.Since(last))
				}
				if last = time.Now(); n < 4 {
					outcome = errors.New("not yet")
					if n == 2 {
						outcome = pubsub.RetryAfter(10*time.Second, errFailed)
					}
				}
			}
			if err := lease.Settle(context.WithoutCancel(ctx), outcome); err != nil {
				t.Error(err)
			}
		}
		for id, want := range map[string]int{"fine": 1, "empty": 0, "large": 1, "poison": 3, "late": 3, "again": 4} {
			if got := seen.of(id); got != want {
				t.Errorf("%s came %d times, want %d", id, got, want)
			}
		}
		reasons := map[string]string{}
		for _, m := range b.DeadLetters("t", "g") {
			reasons[m.ID] = m.Headers.Get("omnibus-dlq-reason")
		}
		if len(reasons) != 2 || reasons["poison"] != "poison" || reasons["empty"] != "validation" {
			t.Errorf("dead letters: %v", reasons)
		}
	})
}
