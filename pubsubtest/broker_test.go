package pubsubtest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/pubsubtest"
)

var (
	_ pubsub.Publisher  = (*pubsubtest.Broker)(nil)
	_ pubsub.Subscriber = (*pubsubtest.Broker)(nil)
)

func server(b *pubsubtest.Broker) *memory.Server {
	s, _ := pubsub.As[*memory.Server](b)
	return s
}

func TestPublished(t *testing.T) {
	b := pubsubtest.Open(t, &pubsub.Options{Manage: pubsub.Off}, "invoices", "mails")
	for i := range 3 {
		if err := b.Publish(t.Context(), "invoices", text(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Publish(t.Context(), "others", text("x")); !errors.Is(err, pubsub.ErrUnroutable) {
		t.Errorf("a topic that nobody made: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	pubsubtest.WantMessages(t, b.Published("invoices"), text("0"), text("1"), text("2"))
	pubsubtest.WantMessages(t, b.Published("mails"))
	pubsubtest.WantMessages(t, b.DeadLetters("invoices", "any"))
	refuses(t, func(tb *fakeT) { pubsubtest.Open(tb, nil).Published("nowhere") }, `fatal: reading topic "nowhere"`)
	refuses(t, func(tb *fakeT) { pubsubtest.Open(tb, nil, "a..b") }, "fatal: pubsubtest.Open: ", "a..b")
	refuses(t, func(tb *fakeT) { pubsubtest.Open(tb, &pubsub.Options{DrainTimeout: -1}) }, "fatal: pubsubtest.Open: ", "DrainTimeout")
}

// The n-th message fails, however it is published, and the others do not.
func TestFailPublish(t *testing.T) {
	for _, code := range []pubsub.Code{pubsub.ErrUnconfirmed, pubsub.ErrTooLarge, pubsub.ErrDenied, pubsub.ErrUnroutable, pubsub.ErrBroker} {
		for name, publish := range map[string]func(t *testing.T, p pubsub.Publisher, msgs []pubsub.Message) []error{
			"one by one": func(t *testing.T, p pubsub.Publisher, msgs []pubsub.Message) (errs []error) {
				t.Helper()
				for _, m := range msgs {
					errs = append(errs, p.Publish(t.Context(), "invoices", m))
				}
				return errs
			},
			"batch": func(t *testing.T, p pubsub.Publisher, msgs []pubsub.Message) []error {
				t.Helper()
				batch, ok := errors.AsType[*pubsub.BatchError](p.PublishBatch(t.Context(), "invoices", msgs))
				if !ok {
					t.Fatal("no *BatchError")
				}
				return batch.Errs
			},
			"async": func(t *testing.T, p pubsub.Publisher, msgs []pubsub.Message) []error {
				t.Helper()
				errs := make([]error, len(msgs))
				for i, m := range msgs {
					p.PublishAsync(t.Context(), "invoices", m, func(_ pubsub.Receipt, err error) { errs[i] = err })
				}
				if err := p.Flush(t.Context()); err != nil {
					t.Error(err)
				}
				return errs
			},
		} {
			t.Run(code.Error()+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := pubsubtest.Open(t, nil, "invoices")
					b.FailPublish(3, code)
					msgs := []pubsub.Message{text("1"), text("2"), text("3"), text("4"), text("5")}
					start := time.Now()
					for i, err := range publish(t, b, msgs) {
						if (err != nil) != (i == 2) || i == 2 && pubsub.CodeOf(err) != code {
							t.Errorf("message %d: %v", i+1, err)
						}
					}
					took, stored := time.Duration(0), slices.Delete(slices.Clone(msgs), 2, 3)
					if code == pubsub.ErrUnconfirmed {
						took, stored = 30*time.Second, msgs
					}
					if d := time.Since(start); d < took || d > took+time.Second {
						t.Errorf("it took %v, expected %v", d, took)
					}
					pubsubtest.WantMessages(t, b.Published("invoices"), stored...)
				})
			})
		}
	}
}

func TestFailPublishSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pubsubtest.Open(t, nil, "invoices")
		p, err := b.Publisher(pubsub.PublisherOptions{Timeout: time.Second, DedupByID: true})
		if err != nil {
			t.Fatal(err)
		}
		b.FailPublish(1, pubsub.ErrDenied)
		b.FailPublish(2, pubsub.ErrUnconfirmed)
		b.FailPublish(4, pubsub.ErrUnavailable) // which is sent again, and counts once
		b.FailPublish(5, pubsub.ErrExhausted)
		want := []pubsub.Code{pubsub.ErrDenied, pubsub.ErrUnconfirmed, 0, pubsub.ErrExhausted, 0}
		for i, code := range want {
			m := pubsub.Message{ID: fmt.Sprint(i)}
			if err := p.Publish(t.Context(), "invoices", m); pubsub.CodeOf(err) != code {
				t.Errorf("message %d: %v, expected %v", i, err, code)
			}
			if code == pubsub.ErrUnconfirmed { // again with its ID, as its hint says
				if err := p.Publish(t.Context(), "invoices", m); err != nil {
					t.Error(err)
				}
			}
		}
		pubsubtest.WantMessages(t, b.Published("invoices"), pubsub.Message{ID: "1"}, pubsub.Message{ID: "2"}, pubsub.Message{ID: "4"})
	})
}

// What the engine moves is no publishing of the test's.
func TestFailPublishSparesDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pubsubtest.Open(t, nil, "dead")
		b.FailPublish(2, pubsub.ErrDenied)
		sub := billing()
		sub.DeadLetter.Topic = "dead"
		b.Deliver(sub, always(errInvalid), order)[0].Want(t, pubsubtest.Fate{Reason: "max-attempts"})
		if err := b.Publish(t.Context(), "dead", order); !errors.Is(err, pubsub.ErrDenied) {
			t.Errorf("the second message that is published: %v", err)
		}
	})
}

func TestFailPublishUnconfirmedAtClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := failure(t, func(t *fakeT) {
			b := pubsubtest.Open(t, &pubsub.Options{DrainTimeout: time.Second}, "invoices")
			b.FailPublish(1, pubsub.ErrUnconfirmed)
			b.PublishAsync(t.Context(), "invoices", order, nil)
		})
		if want := "error: closing the broker: "; len(got) < len(want) || got[:len(want)] != want {
			t.Errorf("got %q", got)
		}
	})
}

func TestFailPublishIsChecked(t *testing.T) {
	for _, call := range []func(*pubsubtest.Broker){
		func(b *pubsubtest.Broker) { b.FailPublish(0, pubsub.ErrDenied) },
		func(b *pubsubtest.Broker) { b.FailPublish(1, 0) },
		func(b *pubsubtest.Broker) { b.FailPublish(1, 200) },
	} {
		refuses(t, func(t *fakeT) { call(pubsubtest.Open(t, nil)) }, "fatal: FailPublish(", "n counts from 1")
	}
}

// A chain of services, with retries, a delay, a dead letter and a publisher that does not wait.
func TestWaitIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pubsubtest.Open(t, nil)
		b.WaitIdle()
		var mailed, billed int // without a lock: WaitIdle orders it
		subscribe := func(topic, group string, h pubsub.Handler) {
			if _, err := b.Subscribe(t.Context(), pubsub.Subscription{Topic: topic, Group: group}, h); err != nil {
				t.Fatal(err)
			}
		}
		subscribe("mails", "mailer", func(context.Context, *pubsub.Delivery) error { mailed++; return nil })
		subscribe("orders", "billing", func(ctx context.Context, d *pubsub.Delivery) error {
			if d.Attempt < 5 {
				return errDown
			}
			billed++
			b.PublishAsync(ctx, "mails", pubsub.Message{Delay: time.Hour}, nil)
			return nil
		})
		subscribe("orders", "refuses", always(pubsub.Permanent(errInvalid)))
		for range 3 {
			if err := b.Publish(t.Context(), "orders", order); err != nil {
				t.Fatal(err)
			}
		}
		b.WaitIdle()
		if mailed != 3 || billed != 3 || len(b.DeadLetters("orders", "refuses")) != 3 {
			t.Errorf("%d mailed, %d billed, %d refused", mailed, billed, len(b.DeadLetters("orders", "refuses")))
		}
	})
}

// What a handler has handed over may still be on its way when nothing is left to settle.
func TestWaitIdleWaitsForPublishAsync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pubsubtest.Open(t, nil)
		mailed := 0
		mail := func(_ context.Context, d *pubsub.Delivery) error {
			if d.Attempt < 3 {
				return errDown
			}
			mailed++
			return nil
		}
		if _, err := b.Subscribe(t.Context(), pubsub.Subscription{Topic: "mails", Group: "mailer"}, mail); err != nil {
			t.Fatal(err)
		}
		bill := func(ctx context.Context, d *pubsub.Delivery) error {
			b.PublishAsync(ctx, "mails", d.Message, nil)
			return nil
		}
		if _, err := b.Subscribe(t.Context(), pubsub.Subscription{Topic: "orders", Group: "billing"}, bill); err != nil {
			t.Fatal(err)
		}
		b.FailPublish(2, pubsub.ErrUnavailable)
		if err := b.Publish(t.Context(), "orders", order); err != nil {
			t.Fatal(err)
		}
		b.WaitIdle()
		if mailed != 1 {
			t.Errorf("%d mailed", mailed)
		}
	})
}

func TestWaitIdleFailsWhereItNeverEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		refuses(t, func(t *fakeT) {
			b := pubsubtest.Open(t, nil, "heartbeats")
			if _, err := b.Subscribe(ctx, pubsub.Subscription{Topic: "heartbeats", Group: "g"}, always(nil)); err != nil {
				t.Error(err)
			}
			running, stop := context.WithCancel(ctx)
			ended := make(chan struct{})
			defer func() { stop(); <-ended }()
			go func() {
				defer close(ended)
				for every := time.NewTicker(99 * time.Millisecond); running.Err() == nil; <-every.C {
					b.PublishAsync(ctx, "heartbeats", pubsub.Message{}, nil)
				}
			}()
			b.WaitIdle()
		}, "fatal: still not idle: messages keep coming")
	})
}

func TestWaitIdleFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuses(t, func(t *fakeT) {
			b := pubsubtest.Open(t, nil)
			sub := pubsub.Subscription{Topic: "orders", Group: "billing", Order: pubsub.OrderNone, Retry: pubsub.Policy{MaxAttempts: pubsub.Unlimited, Max: time.Hour}}
			if _, err := b.Subscribe(t.Context(), sub, always(errDown)); err != nil {
				t.Error(err)
			}
			if err := b.Publish(t.Context(), "orders", order); err != nil {
				t.Error(err)
			}
			b.WaitIdle()
		}, "fatal: still not idle after 720h0m0s:\n  group \"billing\" of \"orders\" has 1 to settle")
	})
}

// The broker of a test is the real one: its optional parts work through it.
func TestOpenIsTheRealBroker(t *testing.T) {
	b := pubsubtest.Open(t, nil, "orders")
	var handled atomic.Int32
	group := pubsub.Topology{Groups: []pubsub.Subscription{{Topic: "orders", Group: "g"}}}
	if err := b.Ensure(t.Context(), group); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), "orders", order); err != nil {
		t.Fatal(err)
	}
	if lag, err := b.Lag(t.Context(), "orders", "g"); err != nil || lag.Messages != 1 {
		t.Errorf("lag %+v, %v", lag, err)
	}
	if err := b.Seek(t.Context(), "orders", "g", pubsub.FromNow()); err != nil {
		t.Error(err)
	}
	if lag, err := b.Lag(t.Context(), "orders", "g"); err != nil || lag.Messages != 0 {
		t.Errorf("after Seek: lag %+v, %v", lag, err)
	}
	n := 0
	for _, err := range b.Browse(t.Context(), pubsub.Place{Topic: "orders"}, pubsub.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 1 || server(b) == nil {
		t.Errorf("%d browsed, server %v", n, server(b))
	}
	sub := pubsub.Subscription{Topic: "orders", Group: "g"}
	if _, err := b.Subscribe(t.Context(), sub, func(context.Context, *pubsub.Delivery) error { handled.Add(1); return nil }); err != nil {
		t.Fatal(err)
	}
	server(b).DropSessions()
	if err := b.Publish(t.Context(), "orders", order); err != nil {
		t.Fatal(err)
	}
	b.WaitIdle()
	if handled.Load() != 1 {
		t.Errorf("%d handled", handled.Load())
	}
}
