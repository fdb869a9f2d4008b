package security_test

import (
	"context"
	"errors"
	"strings"
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

// A message that two keys have signed is the same whichever of them is looked at.
func TestReplayUnderAnotherSignature(t *testing.T) {
	a, b := key(t, security.Ed25519, "a", "orders"), key(t, security.P256, "b", "orders")
	sign := security.Sign(security.SignOptions{Keys: ring(t, a, b), Producer: "orders"})
	wire := mustSend(t, "a", order(), sign)
	text := wire.Headers.Get("omnisig")
	first, second, _ := strings.Cut(text, "~")
	guard := security.Replay(security.ReplayOptions{})
	for i, text := range []string{text, second + "~" + first, second, first, text} {
		again := wire.Clone()
		again.Headers.Set("omnisig", text)
		if got, err := receive(t.Context(), "a", again, sign, guard); err != nil || (got != nil) != (i == 0) {
			t.Errorf("signatures %d: handled %v, %v", i, got != nil, err)
		}
	}
	for name, change := range map[string]func(m *pubsub.Message){
		"another payload":   func(m *pubsub.Message) { m.Payload = []byte("another") },
		"another header":    func(m *pubsub.Message) { m.Headers.Set("tenant", "another") },
		"a header more":     func(m *pubsub.Message) { m.Headers.Add("more", "") },
		"an end":            func(m *pubsub.Message) { m.TTL = time.Hour },
		"another ID":        func(m *pubsub.Message) { m.ID = "another" },
		"another signature": func(*pubsub.Message) { time.Sleep(2 * time.Millisecond) }, // its time is in milliseconds
	} {
		m := order()
		change(&m)
		if got, err := receive(t.Context(), "a", mustSend(t, "a", m, sign), sign, guard); got == nil || err != nil {
			t.Errorf("%s is taken for a replay: %v", name, err)
		}
	}
}

// One that is accepted of several topics is the same in all of them.
func TestReplayInAnotherTopic(t *testing.T) {
	k := key(t, security.Ed25519, "k", "orders")
	sign := security.Sign(security.SignOptions{Keys: ring(t, k), Producer: "orders", Topics: []string{"a"}})
	guard := security.Replay(security.ReplayOptions{})
	wire := mustSend(t, "a", order(), sign)
	for i, topic := range []string{"b", "a", "c"} {
		if got, err := receive(t.Context(), topic, wire, sign, guard); err != nil || (got != nil) != (i == 0) {
			t.Errorf("in %s: handled %v, %v", topic, got != nil, err)
		}
	}
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

// A claim whose answer is lost is given back: the next try is handled, and does not wait for the end of the lease.
func TestReplayGivesALostClaimBack(t *testing.T) {
	sign := security.Sign(security.SignOptions{Keys: ring(t, key(t, security.Ed25519, "k", "orders")), Producer: "orders"})
	guard := security.Replay(security.ReplayOptions{Store: &flakyStore{DedupStore: middleware.NewDedupStore(0), loses: true}})
	wire := mustSend(t, "a", order(), sign)
	for i := range 2 {
		if got, err := receive(t.Context(), "a", wire, sign, guard); (err != nil) != (i == 0) || (got != nil) != (i == 1) {
			t.Errorf("try %d: handled %v, %v", i+1, got != nil, err)
		}
	}
}

// A handler that ends long after its message could only be refused has it remembered all the same, for a time that a store can take.
func TestReplayRemembersWhatWasLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sign := security.Sign(security.SignOptions{Keys: ring(t, key(t, security.Ed25519, "k", "orders")), Producer: "orders"})
		store := &flakyStore{DedupStore: middleware.NewDedupStore(0)}
		slow := pubsub.Middleware{Incoming: func(next pubsub.Handler) pubsub.Handler {
			return func(ctx context.Context, d *pubsub.Delivery) error {
				time.Sleep(time.Hour)
				return next(ctx, d)
			}
		}}
		guard := security.Replay(security.ReplayOptions{Store: store, Window: time.Minute, Lease: 2 * time.Hour})
		if got, err := receive(t.Context(), "a", mustSend(t, "a", order(), sign), sign, guard, slow); got == nil || err != nil || store.window <= 0 {
			t.Errorf("handled %v, %v; remembered for %v", got != nil, err, store.window)
		}
	})
}

// A flakyStore does not always answer.
type flakyStore struct {
	middleware.DedupStore
	down, forgets error
	loses         bool          // the answer to the next claim
	window        time.Duration // of the last that was done
}

func (s *flakyStore) Begin(ctx context.Context, k middleware.DedupKey, claim uint64, lease time.Duration) (middleware.DedupState, error) {
	if s.down != nil {
		return 0, s.down
	}
	state, err := s.DedupStore.Begin(ctx, k, claim, lease)
	if s.loses {
		s.loses = false
		return 0, errDown
	}
	return state, err
}

func (s *flakyStore) Done(ctx context.Context, k middleware.DedupKey, window time.Duration) error {
	s.window = window
	if s.forgets != nil {
		return s.forgets
	}
	return s.DedupStore.Done(ctx, k, window)
}
