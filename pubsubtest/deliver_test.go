package pubsubtest_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/pubsubtest"
)

// sealed is a middleware that changes what is on the wire, and refuses what is not sealed.
func sealed() pubsub.Middleware {
	return pubsub.Middleware{Name: "seal",
		Outgoing: func(_ context.Context, _ string, m *pubsub.Message) error {
			m.Payload = []byte(strings.ToUpper(string(m.Payload)))
			m.Headers.Set("seal", "1")
			return nil
		},
		Incoming: func(next pubsub.Handler) pubsub.Handler {
			return func(ctx context.Context, d *pubsub.Delivery) error {
				if d.Headers.Get("seal") != "1" {
					return pubsub.Permanent(errInvalid)
				}
				d.Payload = []byte(strings.ToLower(string(d.Payload)))
				return next(ctx, d)
			}
		}}
}

func TestDeliverPassesTheMiddlewareBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pubsubtest.Open(t, &pubsub.Options{Use: []pubsub.Middleware{sealed()}})
		var seen string
		fate := b.Deliver(billing(), func(_ context.Context, d *pubsub.Delivery) error {
			seen = string(d.Payload)
			return nil
		}, pubsub.Message{Payload: []byte("tea")})[0]
		fate.Want(t, pubsubtest.Fate{Acked: true, Attempts: 1})
		if seen != "tea" {
			t.Errorf("the handler saw %q", seen)
		}
		pubsubtest.WantMessages(t, b.Published("orders"), pubsub.Message{Payload: []byte("TEA"), Headers: pubsub.Headers{{Name: "seal", Value: "1"}}})

		// what a layer of the Broker refuses is an attempt, too
		strict := pubsub.Middleware{Name: "strict", Incoming: func(pubsub.Handler) pubsub.Handler { return always(pubsub.Permanent(errInvalid)) }}
		fate = pubsubtest.Open(t, &pubsub.Options{Use: []pubsub.Middleware{strict}}).Deliver(billing(), always(nil), order)[0]
		fate.Want(t, pubsubtest.Fate{Attempts: 1, Reason: "permanent", Err: errInvalid})

		// what a subscription's own layer refuses never reaches the handler, and counts
		sub := billing()
		sub.Use = []pubsub.Middleware{{Name: "never", Incoming: func(pubsub.Handler) pubsub.Handler { return always(pubsub.Permanent(errInvalid)) }}}
		fate = b.Deliver(sub, func(context.Context, *pubsub.Delivery) error {
			t.Error("the handler is called")
			return nil
		}, order)[0]
		fate.Want(t, pubsubtest.Fate{Attempts: 1, Reason: "permanent", Category: "bad-order", Err: errInvalid})
	})
}

func TestDeliverSeveralInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pubsubtest.Open(t, nil)
		var mu sync.Mutex
		var order []string
		failed := false
		sub := billing()
		sub.Concurrency = 4
		fates := b.Deliver(sub, func(_ context.Context, d *pubsub.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, string(d.Payload))
			if string(d.Payload) == "a1" && !failed {
				failed = true
				return errDown
			}
			return nil
		},
			pubsub.Message{Key: "a", Payload: []byte("a1")}, pubsub.Message{Key: "a", Payload: []byte("a2")},
			pubsub.Message{Key: "b", Payload: []byte("b1")})
		fates[0].Want(t, pubsubtest.Fate{Acked: true, Attempts: 2, Delays: []time.Duration{time.Second}})
		fates[1].Want(t, pubsubtest.Fate{Acked: true, Attempts: 1, Elapsed: time.Second})
		fates[2].Want(t, pubsubtest.Fate{Acked: true, Attempts: 1})
		if a := slices.DeleteFunc(slices.Clone(order), func(s string) bool { return s[0] != 'a' }); !slices.Equal(a, []string{"a1", "a1", "a2"}) {
			t.Errorf("key a was handled in the order %v", a)
		}
		if fates[2].Elapsed > 100*time.Millisecond {
			t.Errorf("key b waited %v", fates[2].Elapsed)
		}
		refuses(t, func(t *fakeT) { fates[1].Want(t, pubsubtest.Fate{}) }, "the fate of message 2 of 3 is not as expected")
	})
}

// One ID published twice is two messages; what another group does with them does not count.
func TestDeliverTellsMessagesApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pubsubtest.Open(t, nil)
		other := pubsub.Subscription{Topic: "orders", Group: "shipping"}
		if _, err := b.Subscribe(t.Context(), other, always(pubsub.Permanent(errDown))); err != nil {
			t.Fatal(err)
		}
		n := 0
		fates := b.Deliver(billing(), func(context.Context, *pubsub.Delivery) error {
			if n++; n == 2 {
				return pubsub.Permanent(errInvalid)
			}
			return nil
		}, pubsub.Message{ID: "same"}, pubsub.Message{ID: "same"})
		fates[0].Want(t, pubsubtest.Fate{Acked: true})
		fates[1].Want(t, pubsubtest.Fate{Err: errInvalid})
		b.WaitIdle()
		if got := len(b.DeadLetters("orders", "shipping")); got != 2 {
			t.Errorf("%d dead letters of the other group", got)
		}
	})
}

func TestDeliverBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pubsubtest.Open(t, nil)
		sizes := []int{}
		fates := b.DeliverBatch(billing(), pubsub.Batch{Max: 2}, func(_ context.Context, batch []*pubsub.Delivery) error {
			sizes = append(sizes, len(batch))
			errs := make([]error, len(batch))
			for i, d := range batch {
				if string(d.Payload) == "2" && d.Attempt == 1 {
					errs[i] = errDown
				}
			}
			return &pubsub.BatchError{Errs: errs}
		}, text("1"), text("2"), text("3"))
		fates[0].Want(t, pubsubtest.Fate{Acked: true, Attempts: 1})
		fates[1].Want(t, pubsubtest.Fate{Acked: true, Attempts: 2, Delays: []time.Duration{time.Second}})
		fates[2].Want(t, pubsubtest.Fate{Acked: true, Attempts: 1})
		if !slices.Equal(sizes, []int{2, 1, 1}) {
			t.Errorf("batches of %v", sizes)
		}
	})
}

func TestDeliverToAnotherBrokersDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		graveyard := pubsubtest.Open(t, nil, "dead")
		sub := billing()
		sub.DeadLetter = pubsub.DeadLetter{To: graveyard.Broker, Topic: "dead"}
		fate := pubsubtest.Deliver(t, sub, always(errInvalid), order)
		fate.Want(t, pubsubtest.Fate{Reason: "max-attempts", Category: "bad-order", DeadLetter: &order})
		pubsubtest.WantMessages(t, graveyard.Published("dead"), *fate.DeadLetter)
	})
}

func TestDeliverKeepsTheHooksOfTheSubscription(t *testing.T) {
	for _, drop := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			sub := billing()
			told := 0
			sub.DeadLetter.Drop = drop
			sub.DeadLetter.OnDeadLetter = func(d *pubsub.Delivery, err error) {
				<-time.After(20 * time.Millisecond) // the original is acked meanwhile
				if errors.Is(err, errInvalid) && d.Key == order.Key {
					told++
				}
			}
			fate := pubsubtest.Deliver(t, sub, always(errInvalid), order)
			if told != 1 || !errors.Is(fate.Err, errInvalid) {
				t.Errorf("OnDeadLetter was called %d times when Deliver returned; drop %v\n%v", told, drop, fate)
			}
		})
	}
}

// In real time: for handlers that cannot live in a bubble.
func TestDeliverOutsideOfABubble(t *testing.T) {
	sub := billing()
	sub.Retry.Delays = []time.Duration{5 * time.Millisecond}
	fate := pubsubtest.Deliver(t, sub, failing(3, errDown), order)
	fate.Want(t, pubsubtest.Fate{Acked: true, Attempts: 4})
	for _, d := range fate.Delays {
		if d < 5*time.Millisecond {
			t.Errorf("delays %v", fate.Delays)
		}
	}
}

func TestDeliverFails(t *testing.T) {
	deliver := func(change func(*pubsub.Subscription), h pubsub.Handler) func(t *fakeT) {
		return func(t *fakeT) {
			sub := billing()
			change(&sub)
			pubsubtest.Deliver(t, sub, h, order)
			t.Error("Deliver returns")
		}
	}
	for name, c := range map[string]struct {
		f     func(t *fakeT)
		texts []string
	}{
		"no handler":   {deliver(func(*pubsub.Subscription) {}, nil), []string{"fatal: Deliver: ", "the handler is nil"}},
		"a pattern":    {deliver(func(s *pubsub.Subscription) { s.Topic = "orders.*" }, always(nil)), []string{`the topic "orders.*" is a pattern`}},
		"wrong option": {deliver(func(s *pubsub.Subscription) { s.Concurrency = -1 }, always(nil)), []string{"Concurrency is -1"}},
		"Goexit": {deliver(func(*pubsub.Subscription) {}, func(context.Context, *pubsub.Delivery) error { runtime.Goexit(); return nil }),
			[]string{"the handler ended its goroutine, as t.FailNow and t.Fatal do", "attempt 1: its goroutine ended"}},
		"no end": {deliver(func(s *pubsub.Subscription) { s.Order = pubsub.OrderNone; s.Retry.MaxAttempts = pubsub.Unlimited }, always(errDown)),
			[]string{"the message has no end after 720h0m0s", "attempt 1: gateway is down"}},
		"too many runs": {deliver(func(s *pubsub.Subscription) {
			s.Retry = pubsub.Policy{MaxAttempts: pubsub.Unlimited, Immediate: 1 << 20}
		}, always(errDown)),
			[]string{"the message has no end: more than 10000 runs", "attempt 1: gateway is down", " more\n"}},
		"dead letters go nowhere": {deliver(func(s *pubsub.Subscription) {
			s.DeadLetter.Route = func(*pubsub.Delivery, error) string { return "nowhere" }
		}, always(errInvalid)), []string{"cannot be stored as a dead letter", `there is no topic "nowhere"`, "attempt 2: negative amount"}},
		"refused by middleware": {func(t *fakeT) {
			refuse := pubsub.Middleware{Name: "refuse", Outgoing: func(context.Context, string, *pubsub.Message) error { return errInvalid }}
			pubsubtest.Open(t, &pubsub.Options{Use: []pubsub.Middleware{refuse}}).Deliver(billing(), always(nil), order)
		}, []string{"message 1 of 1 is not published", "refuse: negative amount"}},
		"topic deleted": {func(t *fakeT) {
			b := pubsubtest.Open(t, nil)
			b.Deliver(billing(), func(context.Context, *pubsub.Delivery) error {
				server(b).DeleteTopic("orders")
				return errDown
			}, order)
		}, []string{"the subscription ended", "not found"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := failure(t, c.f)
				for _, text := range append(c.texts, "fatal: ") {
					if !strings.Contains(got, text) {
						t.Errorf("it does not say %q:\n%s", text, got)
					}
				}
				if strings.Contains(got, "Deliver returns") {
					t.Error(got)
				}
			})
		})
	}
}

func TestTheHistoryOfManyRunsIsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sub := billing()
		sub.Order, sub.Retry.MaxAttempts = pubsub.OrderNone, 100
		fate := pubsubtest.Deliver(t, sub, failing(60, fmt.Errorf("%s\nsecond line", strings.Repeat("é", 300))), order)
		got := fate.String()
		if n := strings.Count(got, "\n"); n > 45 || !strings.Contains(got, "... 21 more") || !strings.Contains(got, "attempt 61: ok") || strings.Contains(got, "second") {
			t.Errorf("%d lines:\n%s", n, got)
		}
	})
}
