package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/pubsubtest"
)

// What fails three times at the same place is not tried twenty times.
func ExamplePoison() {
	poison := middleware.Poison(middleware.PoisonOptions{})
	h := wrap(func(context.Context, *pubsub.Delivery) error { return failure{"no such customer"} }, poison)
	for range 3 {
		err := h(context.Background(), &pubsub.Delivery{Message: pubsub.Message{ID: "o-1"}})
		outcome, _ := pubsub.OutcomeOf(err)
		fmt.Println(outcome)
	}
	// Output:
	// unclassified
	// unclassified
	// permanent
}

func TestPoison(t *testing.T) {
	other := errors.New("another type")
	for name, tt := range map[string]struct {
		fails func(attempt int) error
		want  pubsubtest.Fate
	}{
		"the same way":        {func(n int) error { return failure{fmt.Sprint("text ", n)} }, pubsubtest.Fate{Attempts: 3, Reason: "poison"}},
		"another way between": {func(n int) error { return [...]error{errFailed, other}[n%2] }, pubsubtest.Fate{Attempts: 9, Reason: "max-attempts"}},
		"one kind, then one":  {func(n int) error { return [...]error{other, other, errFailed, errFailed, errFailed}[n-1] }, pubsubtest.Fate{Attempts: 5, Reason: "poison"}},
		"a panic":             {func(int) error { panic("at one place") }, pubsubtest.Fate{Attempts: 3, Reason: "poison"}},
		"timeouts":            {func(int) error { return context.DeadlineExceeded }, pubsubtest.Fate{Attempts: 9, Reason: "max-attempts"}},
		"what it says":        {func(int) error { return pubsub.RetryAfter(time.Second, errFailed) }, pubsubtest.Fate{Attempts: 9, Reason: "max-attempts"}},
		"a timeout in between": {func(n int) error {
			return [...]error{errFailed, errFailed, context.DeadlineExceeded, errFailed, errFailed, errFailed}[n-1]
		}, pubsubtest.Fate{Attempts: 6, Reason: "poison"}},
		"success in the end": {func(n int) error { return [...]error{errFailed, errFailed, nil}[n-1] }, pubsubtest.Fate{Acked: true, Attempts: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			sub := pubsub.Subscription{Topic: "t", Group: "g", Retry: fixed(9, time.Second)}
			synctest.Test(t, func(t *testing.T) {
				b := pubsubtest.Open(t, opts(middleware.Retry(fixed(9, time.Second)), middleware.Poison(middleware.PoisonOptions{})))
				b.Deliver(sub, func(_ context.Context, d *pubsub.Delivery) error { return tt.fails(d.Attempt) }, message("1"))[0].Want(t, tt.want)
			})
			if name == "a panic" { // of a batch is a panic of all
				return
			}
			synctest.Test(t, func(t *testing.T) {
				b := pubsubtest.Open(t, opts(middleware.Poison(middleware.PoisonOptions{})))
				b.DeliverBatch(sub, pubsub.Batch{}, func(_ context.Context, ds []*pubsub.Delivery) error { return tt.fails(ds[0].Attempt) }, message("1"))[0].Want(t, tt.want)
			})
		})
	}
}

// A hand-back is none of the message's: a service that is restarted again and again makes no poison. What fails when a layer's own time is over does.
func TestPoisonIgnoresDrains(t *testing.T) {
	for name, tt := range map[string]struct {
		ctx  context.Context
		want pubsub.Outcome
	}{
		"drained":                       {drained(t), pubsub.OutcomeNone},
		"drained below a layer's time":  {late(drained(t), t), pubsub.OutcomeNone},
		"the time of a layer is over":   {late(t.Context(), t), pubsub.OutcomePermanent},
		"the reason of a layer's own":   {canceled(t, errors.New("enough")), pubsub.OutcomePermanent},
		"a cancellation without reason": {canceled(t, nil), pubsub.OutcomePermanent},
	} {
		h := wrap(func(context.Context, *pubsub.Delivery) error { return errFailed }, middleware.Poison(middleware.PoisonOptions{Times: 10}))
		var last pubsub.Outcome
		for range 10 {
			last, _ = pubsub.OutcomeOf(h(tt.ctx, &pubsub.Delivery{Message: message("1")}))
		}
		if last != tt.want {
			t.Errorf("%s: after ten failures the outcome is %v, want %v", name, last, tt.want)
		}
	}
}

// When is the user's: one that panics does not count the failure, and the dead letter tells of that, not of the panic.
func TestPoisonWhenPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		when := func(error) bool { panic("when") }
		b := pubsubtest.Open(t, opts(middleware.Retry(fixed(5, time.Second)), middleware.Poison(middleware.PoisonOptions{When: when})))
		fate := b.Deliver(pubsub.Subscription{Topic: "t", Group: "g"}, func(context.Context, *pubsub.Delivery) error { return errFailed }, message("1"))[0]
		fate.Want(t, pubsubtest.Fate{Attempts: 5, Reason: "max-attempts", Err: errFailed})
		if text := fate.DeadLetter.Headers.Get("omnibus-dlq-error"); text != errFailed.Error() {
			t.Errorf("the dead letter says %q", text)
		}
	})
}

// Snoozes in between neither count nor begin anew; groups are apart; beyond Messages the oldest is forgotten.
func TestPoisonRemembers(t *testing.T) {
	poison := middleware.Poison(middleware.PoisonOptions{Times: 2, Messages: 2})
	var says error
	h := wrap(func(context.Context, *pubsub.Delivery) error { return says }, poison)
	run := func(group, id string, err error) pubsub.Outcome {
		says = err
		o, _ := pubsub.OutcomeOf(h(t.Context(), &pubsub.Delivery{Message: message(id), Topic: "t", Group: group}))
		return o
	}
	for i, step := range []struct {
		group, id string
		says      error
		want      pubsub.Outcome
	}{
		{"g", "1", errFailed, pubsub.OutcomeNone},
		{"g", "1", pubsub.Snooze(0, nil), pubsub.OutcomeSnooze},
		{"h", "1", errFailed, pubsub.OutcomeNone},
		{"g", "1", errFailed, pubsub.OutcomePermanent},
		{"h", "1", errFailed, pubsub.OutcomePermanent},
		{"g", "1", errFailed, pubsub.OutcomeNone}, // replayed: begins anew
		{"g", "1", nil, pubsub.OutcomeAck},
		{"g", "1", errFailed, pubsub.OutcomeNone},
		{"g", "2", errFailed, pubsub.OutcomeNone},
		{"g", "3", errFailed, pubsub.OutcomeNone}, // 1 is forgotten
		{"g", "1", errFailed, pubsub.OutcomeNone},
		{"g", "3", errFailed, pubsub.OutcomePermanent},
	} {
		if got := run(step.group, step.id, step.says); got != step.want {
			t.Fatalf("step %d: %v, want %v", i, got, step.want)
		}
	}
}

func TestPoisonConcurrently(t *testing.T) {
	poison := middleware.Poison(middleware.PoisonOptions{Times: 5, Messages: 1000})
	h := wrap(func(context.Context, *pubsub.Delivery) error { return errFailed }, poison)
	var poisoned tally
	var wg sync.WaitGroup
	for range 10 { // each message fails ten times, in any order
		wg.Go(func() {
			for i := range 100 {
				id := fmt.Sprint(i)
				if o, _ := pubsub.OutcomeOf(h(context.Background(), &pubsub.Delivery{Message: message(id)})); o == pubsub.OutcomePermanent {
					poisoned.add(id)
				}
			}
		})
	}
	wg.Wait()
	for i := range 100 {
		if n := poisoned.of(fmt.Sprint(i)); n != 2 {
			t.Errorf("message %d was poison %d times, want 2", i, n)
		}
	}
}
