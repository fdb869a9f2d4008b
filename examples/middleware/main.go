// Command middleware puts a chain of layers around a handler and shows what each of them does about a failure: the message that comes
// twice, the one that can never succeed, the one that needs a second try, the partner who is down, and a layer of one's own.
//
//	go run ./examples/middleware
//	BROKER_URL=nats://127.0.0.1:4222 go run ./examples/middleware
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/pubsub"
)

func main() {
	if err := run(context.Background(), cmp.Or(os.Getenv("BROKER_URL"), "mem://")); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, url string) (err error) {
	running, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	var left atomic.Int32 // of the outcomes below
	left.Store(7)
	outcome := func(what ...any) {
		fmt.Println(what...)
		if left.Add(-1) == 0 {
			stop()
		}
	}

	var bank bank
	b, err := brokers.Open(ctx, url, &pubsub.Options{Use: []pubsub.Middleware{
		// Messages come in from the top down, and go out from the bottom up.
		region("eu", outcome),
		middleware.Retry(pubsub.Policy{MaxAttempts: 20, Delays: []time.Duration{10 * time.Millisecond}}, pubsub.Rule{
			Category: "timeout",
			When:     func(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) },
			Retry:    pubsub.Policy{MaxAttempts: 5, Immediate: 1, Initial: 100 * time.Millisecond},
		}),
		middleware.Poison(middleware.PoisonOptions{Times: 3, When: isMalformed}),
		middleware.Breaker(middleware.BreakerOptions{
			Min: 2, Open: 100 * time.Millisecond, // the default is 10 results, and 30s
			Outage: func(err error) bool { return errors.Is(err, errDown) },
			OnChange: func(c middleware.Circuit) {
				switch c.State {
				case middleware.CircuitOpen:
					bank.up.Store(true) // it never takes long
					outcome("circuit open:", c.Reason)
				case middleware.CircuitProbing:
				case middleware.CircuitClosed:
					outcome("circuit closed")
				}
			},
		}),
		middleware.Dedup(middleware.DedupOptions{OnDrop: func(d *pubsub.Delivery) { outcome("dropped the copy of", d.ID) }}),
		middleware.Log(slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelError, ReplaceAttr: withoutTimes}))),
	}})
	if err != nil {
		return err // a harmful order of layers, among others
	}
	defer func() { err = errors.Join(err, b.Close()) }()

	ledger := pubsub.Subscription{
		Topic: "payments", Group: "ledger",
		DeadLetter: pubsub.DeadLetter{OnDeadLetter: func(d *pubsub.Delivery, err error) { outcome("gave up", d.ID+":", err) }},
	}
	book := func(_ context.Context, d *pubsub.Delivery) error {
		if err := bank.book(d); err != nil {
			return err // the handler only says what went wrong
		}
		outcome("booked", d.ID)
		return nil
	}
	if _, err := b.Subscribe(running, ledger, book); err != nil {
		return err
	}
	for _, id := range []string{"once", "once", "broken", "slow"} {
		if err := b.Publish(ctx, "payments", pubsub.Message{ID: id}); err != nil {
			return err
		}
	}
	abroad := pubsub.Message{ID: "abroad", Headers: pubsub.Headers{{Name: regionHeader, Value: "us"}}}
	if err := b.Publish(ctx, "payments", abroad); err != nil {
		return err
	}
	if err := b.Run(running); err != nil {
		return err
	}
	if n := left.Load(); n > 0 {
		return fmt.Errorf("%d outcomes did not come", n)
	}
	return nil
}

const regionHeader = "region"

// region is a layer of one's own, both directions in one value: what is published says where it comes from, and what comes from elsewhere
// is acked without the handler.
func region(here string, ignored func(...any)) pubsub.Middleware {
	return pubsub.Middleware{
		Name:  "region",
		After: []string{"sign"}, // it may only stand behind that one, so that the header is believed once its signature is checked
		Why:   "the region would be believed before its signature is checked",
		Outgoing: func(_ context.Context, _ string, m *pubsub.Message) error {
			if m.Headers.Get(regionHeader) == "" {
				m.Headers.Set(regionHeader, here)
			}
			return nil
		},
		Incoming: func(next pubsub.Handler) pubsub.Handler {
			return func(ctx context.Context, d *pubsub.Delivery) error {
				if r := d.Headers.Get(regionHeader); r != here {
					ignored("ignored", d.ID, "from", r)
					return nil
				}
				return next(ctx, d)
			}
		},
	}
}

var errDown = errors.New("the bank is down")

// Each kind of failure that Poison is to know again has a type of its own.
type malformedError struct{ field string }

func (e malformedError) Error() string { return "no " + e.field }

func isMalformed(err error) bool {
	_, ok := errors.AsType[malformedError](err)
	return ok
}

// A bank is down until the circuit has opened, and late once.
type bank struct{ up atomic.Bool }

func (b *bank) book(d *pubsub.Delivery) error {
	switch {
	case d.ID == "broken":
		return malformedError{"amount"}
	case !b.up.Load():
		return errDown
	case d.ID == "slow" && d.Attempt == 1:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// withoutTimes leaves out of the log what is different in each run.
func withoutTimes(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey || a.Key == "took" {
		return slog.Attr{}
	}
	return a
}
