package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// dead runs one message through h until it is given up, and returns its dead letter's headers.
func dead(t *testing.T, sub pubsub.Subscription, h pubsub.Handler) (headers pubsub.Headers) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		sub.Topic, sub.Group = "t", "g"
		if _, err := b.Subscribe(t.Context(), sub, h); err != nil {
			t.Fatal(err)
		}
		publish(t, b, 1)
		settled(t, b)
		for rec, err := range b.Browse(t.Context(), pubsub.Place{Topic: "t", Group: "g", Kind: pubsub.PlaceDead}, pubsub.Position{}) {
			if err != nil {
				t.Fatal(err)
			}
			headers = rec.Msg.Headers
		}
	})
	if headers == nil {
		t.Fatal("no dead letter")
	}
	return headers
}

func TestGiveUpSaysWhy(t *testing.T) {
	h := dead(t, pubsub.Subscription{}, func(context.Context, *pubsub.Delivery) error {
		return pubsub.GiveUp(pubsub.ReasonValidation, errors.New("no amount"))
	})
	if got := h.Get("omnibus-dlq-reason"); got != "validation" {
		t.Errorf("reason %q", got)
	}
	if pubsub.GiveUp(pubsub.ReasonValidation, nil) != nil {
		t.Error("GiveUp of nil is an error")
	}
	if o, _ := pubsub.OutcomeOf(pubsub.GiveUp(pubsub.ReasonPoison, io.EOF)); o != pubsub.OutcomePermanent {
		t.Errorf("outcome %v", o)
	}
}

// A layer may classify by a rule; its category is the one in the dead letter, and its policy counts the attempts.
func TestRuleClassifies(t *testing.T) {
	rule := pubsub.Rule{Category: "partner", When: func(err error) bool { return errors.Is(err, io.EOF) }, Retry: pubsub.Policy{MaxAttempts: 2, Delays: []time.Duration{time.Second}}}
	h := dead(t, pubsub.Subscription{Rules: []pubsub.Rule{{Category: "outer", When: func(error) bool { return true }}}},
		func(context.Context, *pubsub.Delivery) error {
			matched, err := rule.Classify(io.EOF)
			if !matched {
				t.Error("not matched")
			}
			return err
		})
	if h.Get("omnibus-dlq-category") != "partner" || h.Get("omnibus-dlq-attempts") != "2" {
		t.Errorf("headers %v", h)
	}
	for name, when := range map[string]func(error) bool{"no match": func(error) bool { return false }, "panic": func(error) bool { panic("when") }} {
		rule.When = when
		if matched, err := rule.Classify(io.EOF); matched || err != io.EOF { //nolint:errorlint // the same error, not one that wraps it
			t.Errorf("%s: %v, %v", name, err, matched)
		}
	}
	if matched, err := rule.Classify(nil); err != nil || matched {
		t.Error("nil is classified")
	}
}

func TestPanicReachesLayersAsAnError(t *testing.T) {
	var seen error
	layer := pubsub.Middleware{Name: "watch", Incoming: func(next pubsub.Handler) pubsub.Handler {
		return func(ctx context.Context, d *pubsub.Delivery) error {
			seen = next(ctx, d)
			return seen
		}
	}}
	h := dead(t, pubsub.Subscription{Use: []pubsub.Middleware{layer}, Retry: pubsub.Policy{MaxAttempts: 1}},
		func(context.Context, *pubsub.Delivery) error { return explode() })
	if seen == nil || seen.Error() != "panic: boom" {
		t.Errorf("the layer saw %v", seen)
	}
	if stack := h.Get("omnibus-dlq-stack"); !strings.Contains(stack, "explode") {
		t.Errorf("the stack does not show who panicked:\n%s", stack)
	}
}

func explode() error { panic("boom") }

func TestLayersAreChecked(t *testing.T) {
	for name, tt := range map[string]struct {
		layers []pubsub.Middleware
		want   string
	}{
		"its options":        {[]pubsub.Middleware{{Name: "limit", Err: errors.New("Burst is -1")}}, `middleware "limit": Burst is -1`},
		"the second is late": {[]pubsub.Middleware{{Name: "a"}, {Name: "b", After: []string{"a"}, Why: "b eats a"}, {Name: "a"}}, "b eats a"},
	} {
		opts := &pubsub.Options{Use: tt.layers}
		if b, err := memory.NewServer(memory.Config{}).Open(t.Context(), opts); !errors.Is(err, pubsub.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Open: %v", name, err)
			_ = b
		}
		b := memory.New(nil)
		_, err := b.Subscribe(t.Context(), pubsub.Subscription{Topic: "t", Group: "g", Use: tt.layers}, func(context.Context, *pubsub.Delivery) error { return nil })
		if !errors.Is(err, pubsub.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Subscribe: %v", name, err)
		}
		b.Close()
	}
}

type idError struct{ id string }

func (e idError) Error() string { return e.id }

func TestFingerprint(t *testing.T) {
	panicking := func(f func() error) (err error) { // as a layer sees it
		dead(t, pubsub.Subscription{Retry: pubsub.Policy{MaxAttempts: 1}, Use: []pubsub.Middleware{{Name: "watch", Incoming: func(next pubsub.Handler) pubsub.Handler {
			return func(ctx context.Context, d *pubsub.Delivery) error {
				err = next(ctx, d)
				return err
			}
		}}}}, func(context.Context, *pubsub.Delivery) error { return f() })
		return err
	}
	index := 1
	other := func() error { return []error{nil}[index] }
	errs := map[string]error{
		"plain": errors.New("a"), "typed": idError{"a"}, "wrapped": fmt.Errorf("a: %w", idError{"a"}), "joined": errors.Join(errors.New("a"), idError{"a"}),
		"panic": panicking(explode), "other panic": panicking(other),
	}
	same := map[string]error{
		"plain": errors.New("b"), "typed": pubsub.Permanent(idError{"b"}), "wrapped": fmt.Errorf("b: %w", idError{"b"}), "joined": errors.Join(errors.New("b"), idError{"b"}),
		"panic": panicking(explode), "other panic": panicking(other),
	}
	seen := map[string]string{}
	for name, err := range errs {
		f := pubsub.Fingerprint(err)
		if before, twice := seen[f]; twice {
			t.Errorf("%s and %s have the fingerprint %s", name, before, f)
		}
		seen[f] = name
		if again := pubsub.Fingerprint(same[name]); again != f || !strings.HasPrefix(f, "v1-") {
			t.Errorf("%s: %s, then %s", name, f, again)
		}
	}
	if pubsub.Fingerprint(nil) != "" {
		t.Error("nil has a fingerprint")
	}
}

func TestDeferredSaysWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got sync.Map
		b := memory.New(&pubsub.Options{Use: []pubsub.Middleware{{Name: "watch", Incoming: func(next pubsub.Handler) pubsub.Handler {
			return func(ctx context.Context, d *pubsub.Delivery) error {
				got.Store(d.Group, d.Deferred())
				return next(ctx, d)
			}
		}}}})
		defer b.Close()
		one := func(context.Context, *pubsub.Delivery) error { return nil }
		many := func(context.Context, []*pubsub.Delivery) error { return nil }
		if _, err := b.Subscribe(t.Context(), pubsub.Subscription{Topic: "t", Group: "one"}, one); err != nil {
			t.Fatal(err)
		}
		if _, err := b.SubscribeBatch(t.Context(), pubsub.Subscription{Topic: "t", Group: "many"}, pubsub.Batch{}, many); err != nil {
			t.Fatal(err)
		}
		loop, err := b.Receive(t.Context(), pubsub.Subscription{Topic: "t", Group: "pull"})
		if err != nil {
			t.Fatal(err)
		}
		publish(t, b, 1)
		for lease, err := range loop {
			if err != nil {
				t.Fatal(err)
			}
			_ = lease.Settle(t.Context(), nil)
			break
		}
		time.Sleep(time.Second)
		for group, want := range map[string]bool{"one": false, "many": true, "pull": true} {
			if is, _ := got.Load(group); is != want {
				t.Errorf("%s: deferred is %v", group, is)
			}
		}
	})
}

// A layer may keep a delivery and ask it later, from another goroutine: the answer does not change, though the item behind it is another message's.
func TestDeferredOfKeptDeliveries(t *testing.T) {
	const messages = 500
	for form, want := range map[string]bool{"one": false, "many": true, "pull": true} {
		synctest.Test(t, func(t *testing.T) {
			kept := make(chan *pubsub.Delivery, 2*messages) // has room for all: whoever keeps one is not in step with whoever asks
			b := memory.New(&pubsub.Options{Use: []pubsub.Middleware{{Name: "keep", Incoming: func(next pubsub.Handler) pubsub.Handler {
				return func(ctx context.Context, d *pubsub.Delivery) error {
					kept <- d
					return next(ctx, d)
				}
			}}}})
			var asking sync.WaitGroup
			asking.Go(func() {
				var all []*pubsub.Delivery
				for d := range kept {
					all = append(all, d)
					for _, d := range all[max(len(all)-20, 0):] {
						if d.Deferred() != want {
							t.Errorf("%s: deferred is %v", form, !want)
						}
					}
				}
				for _, d := range all {
					if d.Deferred() != want {
						t.Errorf("%s: at the end deferred is %v", form, !want)
					}
				}
				if len(all) != messages+messages/10 {
					t.Errorf("%s: %d deliveries", form, len(all))
				}
			})
			again := func(d *pubsub.Delivery) error { // every tenth, once
				if d.Attempt == 1 && strings.HasSuffix(string(d.Payload), "7") {
					return errors.New("again")
				}
				return nil
			}
			sub := pubsub.Subscription{Topic: "t", Group: "g", MaxInFlight: 8, Order: pubsub.OrderNone, Retry: pubsub.Policy{Immediate: 1}}
			var err error
			var loop iter.Seq2[pubsub.Lease, error]
			ctx, stop := context.WithCancel(t.Context())
			switch form {
			case "one":
				_, err = b.Subscribe(ctx, sub, func(_ context.Context, d *pubsub.Delivery) error { return again(d) })
			case "many":
				_, err = b.SubscribeBatch(ctx, sub, pubsub.Batch{Max: 4}, func(_ context.Context, ds []*pubsub.Delivery) error {
					failed := &pubsub.BatchError{Errs: make([]error, len(ds))}
					for i, d := range ds {
						failed.Errs[i] = again(d)
					}
					return failed
				})
			case "pull":
				loop, err = b.Receive(ctx, sub)
			}
			if err != nil {
				t.Fatal(err)
			}
			var pulling sync.WaitGroup
			if loop != nil {
				pulling.Go(func() {
					for lease, err := range loop {
						if err != nil {
							t.Error(err)
							return
						}
						if err := lease.Settle(t.Context(), again(lease.Delivery)); err != nil {
							t.Error(err)
						}
					}
				})
			}
			publish(t, b, messages)
			settled(t, b)
			stop()
			pulling.Wait()
			b.Close()
			close(kept)
			asking.Wait()
		})
	}
}
