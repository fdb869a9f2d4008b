package security_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Attack 4.
func TestReplayIsNotHandled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := key(t, security.Ed25519, "k", "orders")
		sign := security.Sign(security.SignOptions{Keys: ring(t, k), Producer: "orders"})
		store := middleware.NewDedupStore(0)
		replays := 0
		replica := func() pubsub.Middleware { // another process, or the same after a restart
			return security.Replay(security.ReplayOptions{Store: store, Window: time.Hour, OnReplay: func(*pubsub.Delivery) { replays++ }})
		}
		handled := func(wire pubsub.Message) bool {
			t.Helper()
			got, err := receive(t.Context(), "a", wire, sign, replica())
			if err != nil {
				t.Errorf("a replay is %v, want an ack", err)
			}
			return got != nil
		}
		wire := mustSend(t, "a", order(), sign)
		if !handled(wire) || handled(wire) || handled(wire) || replays != 2 {
			t.Errorf("it is not handled once: %d replays", replays)
		}
		// what changes nothing of what is signed changes nothing
		again := wire.Clone()
		again.Headers.Add("x-other", "1")
		other := key(t, security.Ed25519, "unknown", "orders")
		text := again.Headers.Get("omnisig")
		again.Headers.Set("omnisig", mustSend(t, "a", order(), security.Sign(security.SignOptions{Keys: ring(t, other), Producer: "orders"})).Headers.Get("omnisig")+"~"+text)
		if handled(again) {
			t.Error("a replay with another header and another signature is handled")
		}
		// the same message of the application, published again, is another
		time.Sleep(time.Millisecond)
		if !handled(mustSend(t, "a", order(), sign)) {
			t.Error("what was published again is not handled")
		}
		time.Sleep(time.Hour - time.Millisecond)
		if handled(wire) {
			t.Error("it is handled again at the end of its window")
		}
		time.Sleep(time.Millisecond)
		wantRefused(t, "a", wire, security.ErrExpired, sign, replica())
		wantPaused(t, order(), replica())
	})
}

func TestFailedIsNoReplay(t *testing.T) {
	k := key(t, security.Ed25519, "k", "orders")
	sign := security.Sign(security.SignOptions{Keys: ring(t, k), Producer: "orders"})
	store := &flakyStore{DedupStore: middleware.NewDedupStore(0)}
	var lost []error
	guard := security.Replay(security.ReplayOptions{Store: store, OnFail: func(_ *pubsub.Delivery, err error) { lost = append(lost, err) }})
	errHandler := errors.New("handler")
	fails := pubsub.Middleware{Incoming: func(next pubsub.Handler) pubsub.Handler {
		return func(ctx context.Context, d *pubsub.Delivery) error {
			if d.Headers.Get("tenant") == "fails" {
				return errHandler
			}
			return next(ctx, d)
		}
	}}
	m := order()
	m.Headers.Set("tenant", "fails")
	wire := mustSend(t, "a", m, sign)
	for range 3 {
		if _, err := receive(t.Context(), "a", wire, sign, guard, fails); !errors.Is(err, errHandler) {
			t.Errorf("a retry is taken for a replay: %v", err)
		}
	}
	if got, err := receive(t.Context(), "a", wire, sign, guard); got == nil || err != nil {
		t.Errorf("the last retry is taken for a replay: %v", err)
	}
	// while one copy is handled, another waits
	twin := order()
	twin.ID = "o-3"
	copied := mustSend(t, "a", twin, sign)
	running := pubsub.Middleware{Incoming: func(next pubsub.Handler) pubsub.Handler {
		return func(ctx context.Context, d *pubsub.Delivery) error {
			got, err := receive(ctx, "a", copied, sign, guard)
			if outcome, _ := pubsub.OutcomeOf(err); got != nil || outcome != pubsub.OutcomeSnooze {
				t.Errorf("a copy of what is being handled: %v, %v", got, err)
			}
			return next(ctx, d)
		}
	}}
	if got, err := receive(t.Context(), "a", copied, sign, guard, running); got == nil || err != nil {
		t.Errorf("%v", err)
	}
	store.down = errDown
	if got, err := receive(t.Context(), "a", mustSend(t, "a", order(), sign), sign, guard); got != nil || !errors.Is(err, errDown) {
		t.Errorf("while the store is down: %v, %v", got, err)
	}
	store.down, store.forgets = nil, errDown
	other := order()
	other.ID = "o-2"
	if got, err := receive(t.Context(), "a", mustSend(t, "a", other, sign), sign, guard); got == nil || err != nil || len(lost) != 1 || !errors.Is(lost[0], errDown) {
		t.Errorf("while the store notes nothing: %v, %v, told of %v", got, err, lost)
	}
	if err := security.Replay(security.ReplayOptions{Window: -1}).Err; err == nil {
		t.Error("a negative window is taken")
	}
}

// A flakyStore does not always answer.
type flakyStore struct {
	middleware.DedupStore
	down, forgets error
}

func (s *flakyStore) Begin(ctx context.Context, k middleware.DedupKey, claim uint64, lease time.Duration) (middleware.DedupState, error) {
	if s.down != nil {
		return 0, s.down
	}
	return s.DedupStore.Begin(ctx, k, claim, lease)
}

func (s *flakyStore) Done(ctx context.Context, k middleware.DedupKey, window time.Duration) error {
	if s.forgets != nil {
		return s.forgets
	}
	return s.DedupStore.Done(ctx, k, window)
}
