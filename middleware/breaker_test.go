package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/pubsubtest"
)

// While the partner is down the subscription pauses, and no message pays for it.
func ExampleBreaker() {
	breaker := middleware.Breaker(middleware.BreakerOptions{
		Min: 2, Open: time.Minute,
		OnChange: func(c middleware.Circuit) { fmt.Println("circuit:", c.State, "because", c.Reason) },
	})
	h := wrap(func(context.Context, *pubsub.Delivery) error { return errPartner }, breaker)
	for range 3 {
		err := h(context.Background(), &pubsub.Delivery{})
		outcome, _ := pubsub.OutcomeOf(err)
		fmt.Println(outcome, "-", err)
	}
	// Output:
	// unclassified - the partner is down
	// circuit: open because the partner is down
	// pause - the partner is down
	// pause - the circuit is open: the partner is down
}

// fetching counts how often records are asked for.
type fetching struct {
	pubsub.Driver
	asked atomic.Int64
}

func (f *fetching) OpenSource(ctx context.Context, spec pubsub.SourceSpec) (pubsub.Source, error) {
	src, err := f.Driver.OpenSource(ctx, spec)
	if err != nil || spec.From.Kind != pubsub.PlaceMain {
		return src, err
	}
	return &fetched{src, f}, nil
}

type fetched struct {
	pubsub.Source
	f *fetching
}

func (s *fetched) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	if len(buf) > 0 {
		s.f.asked.Add(1)
	}
	return s.Source.Recv(ctx, buf, maxBytes)
}

// Open for 60 s, watched for 30 s under load: no handler is called, no failure recorded, nothing fetched, nothing dead-lettered. Then all is
// handled, and nobody has lost an attempt but those that failed while it was still closed.
func TestBreakerOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls, failures, given atomic.Int64
		var down atomic.Bool
		breaker := middleware.Breaker(middleware.BreakerOptions{Open: time.Minute})
		watch := pubsub.Middleware{Name: "watch", Observe: func(ev pubsub.Event) {
			switch ev.Kind {
			case pubsub.EventDeadLettered:
				given.Add(1)
			case pubsub.EventRetried:
				if o, _ := pubsub.OutcomeOf(ev.Err); o != pubsub.OutcomeSnooze {
					failures.Add(1)
				}
			}
		}}
		drv := &fetching{Driver: memory.NewServer(memory.Config{}).Driver()}
		b, err := pubsub.New(t.Context(), drv, opts(watch, middleware.Retry(fixed(3, time.Second)), breaker))
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var done tally
		c, err := b.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "g", Concurrency: 8, MaxInFlight: 64}, func(_ context.Context, d *pubsub.Delivery) error {
			calls.Add(1)
			if down.Load() {
				return errPartner
			}
			done.add(d.ID)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		down.Store(true)
		var load sync.WaitGroup
		load.Go(func() {
			for i := range 3000 {
				m := message(fmt.Sprint("m-", i))
				m.Key = fmt.Sprint(i % 100)
				if err := b.Publish(ctx, "t", m); err != nil {
					t.Error(err)
					return
				}
				time.Sleep(30 * time.Millisecond)
			}
		})
		for c.State().Phase != pubsub.Paused {
			time.Sleep(10 * time.Millisecond)
		}
		if reason := c.State().Reason; reason == nil || !strings.Contains(reason.Error(), errPartner.Error()) {
			t.Errorf("State gives the reason %v", reason)
		}
		time.Sleep(time.Second) // what is buffered has come back
		before := [...]int64{calls.Load(), failures.Load(), drv.asked.Load()}
		if before[0] > 20 || before[1] > 9 {
			t.Errorf("%d calls and %d failures until it opened, at 10 results of which half are bad", before[0], before[1])
		}
		time.Sleep(30 * time.Second)
		if after := [...]int64{calls.Load(), failures.Load(), drv.asked.Load()}; after != before {
			t.Errorf("calls, failures and fetches went from %v to %v while it was open", before, after)
		}
		if s := c.State(); s.Phase != pubsub.Paused {
			t.Errorf("State is %+v", s)
		}
		time.Sleep(5 * time.Minute) // a few probes, that fail
		if n := calls.Load() - before[0]; n < 3 || n > 6 {
			t.Errorf("%d probes in five minutes", n)
		}
		if n := failures.Load() - before[1]; n != 0 {
			t.Errorf("probes counted %d failures", n)
		}
		down.Store(false)
		load.Wait()
		time.Sleep(2 * time.Minute)
		for i := range 3000 {
			if n := done.of(fmt.Sprint("m-", i)); n != 1 {
				t.Errorf("message %d was handled %d times", i, n)
			}
		}
		if given.Load() > 0 {
			t.Errorf("%d dead letters for an outage", given.Load())
		}
	})
}

// A message that fails whatever the partner does cannot keep the circuit open, and is not given up for the outage: each probe is another message.
func TestBreakerProbesRotate(t *testing.T) {
	for _, order := range []pubsub.Order{pubsub.OrderByKey, pubsub.OrderByKeyLoose, pubsub.OrderNone} {
		synctest.Test(t, func(t *testing.T) {
			b := pubsubtest.Open(t, opts(middleware.Retry(fixed(3, time.Second)), middleware.Breaker(middleware.BreakerOptions{Min: 4, Open: time.Minute})))
			start := time.Now()
			sub := pubsub.Subscription{Topic: "t", Group: "g", Order: order}
			var msgs []pubsub.Message
			for i := range 6 {
				m := message(fmt.Sprint("m-", i))
				m.Key = m.ID
				msgs = append(msgs, m)
			}
			fates := b.Deliver(sub, func(_ context.Context, d *pubsub.Delivery) error {
				if d.ID == "m-3" || time.Since(start) < 30*time.Second {
					return errPartner
				}
				return nil
			}, msgs...)
			fates[3].Want(t, pubsubtest.Fate{Attempts: 3, Reason: "max-attempts"}) // it has opened the circuit, and is the first probe
			for i, f := range fates {
				if i == 3 {
					continue
				}
				if !f.Acked || f.Elapsed > 3*time.Minute {
					t.Errorf("%v: %v", order, f)
				}
			}
		})
	}
}

// What the handler says of its message, and what is expected or excluded, opens nothing; a panic and a timeout do.
func TestBreakerCounts(t *testing.T) {
	hung := canceled(t, &pubsub.Error{Code: pubsub.ErrTimeout})
	none := func(error) bool { return false }
	for name, tt := range map[string]struct {
		ctx    context.Context
		says   error
		outage func(error) bool
		opens  bool
	}{
		"unclassified":         {t.Context(), errFailed, nil, true},
		"expected":             {t.Context(), pubsub.Expected(errFailed), nil, true},
		"permanent":            {t.Context(), pubsub.Permanent(errFailed), nil, false},
		"retry after":          {t.Context(), pubsub.RetryAfter(0, errFailed), nil, false},
		"snooze":               {t.Context(), pubsub.Snooze(0, errFailed), nil, false},
		"pause":                {t.Context(), pubsub.Pause(0, errFailed), nil, false},
		"success":              {t.Context(), nil, nil, false},
		"timeout":              {hung, pubsub.Permanent(errFailed), none, true},
		"timeout by a layer":   {t.Context(), fmt.Errorf("%w", pubsub.ErrTimeout), none, true},
		"drained":              {drained(t), errFailed, nil, false},
		"drained, then late":   {late(drained(t), t), errFailed, nil, false},
		"a layer's own time":   {late(t.Context(), t), context.DeadlineExceeded, nil, true},
		"a layer's own reason": {canceled(t, errors.New("enough")), errFailed, nil, true},
		"no outage":            {t.Context(), errFailed, none, false},
		"outage that panics":   {t.Context(), errFailed, func(error) bool { panic("outage") }, false},
		"retry that is outage": {t.Context(), pubsub.RetryAfter(0, errFailed), func(error) bool { return true }, true},
	} {
		opened := false
		layer := middleware.Breaker(middleware.BreakerOptions{Min: 3, Outage: tt.outage, OnChange: func(middleware.Circuit) { opened = true }})
		called := 0
		h := wrap(func(context.Context, *pubsub.Delivery) error { called++; return tt.says }, layer)
		for range 5 {
			err := h(tt.ctx, &pubsub.Delivery{})
			if before, _ := pubsub.OutcomeOf(tt.says); called < 3 && before != pubsub.OutcomeNone {
				if o, _ := pubsub.OutcomeOf(err); o != before {
					t.Errorf("%s: became %v", name, o)
				}
			}
		}
		if opened != tt.opens || (called == 3) != tt.opens {
			t.Errorf("%s: opened is %v after %d calls, want %v", name, opened, called, tt.opens)
		}
	}
}

// With a key the circuits are apart, and those that are closed go on.
func TestBreakerKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		layer := middleware.Breaker(middleware.BreakerOptions{Min: 2, Open: time.Minute, Key: func(d *pubsub.Delivery) string { return d.Type }})
		b := pubsubtest.Open(t, opts(layer))
		start := time.Now()
		var msgs []pubsub.Message
		for i := range 20 {
			m := message(fmt.Sprint("m-", i))
			m.Type = [...]string{"pay", "mail"}[i%2]
			msgs = append(msgs, m)
		}
		var late tally
		fates := b.Deliver(pubsub.Subscription{Topic: "t", Group: "g", Retry: fixed(9, time.Second)}, func(_ context.Context, d *pubsub.Delivery) error {
			if d.Type == "pay" && time.Since(start) < 30*time.Second {
				late.add("calls")
				return errPartner
			}
			return nil
		}, msgs...)
		for i, f := range fates {
			switch {
			case !f.Acked || f.Attempts > 2:
				t.Errorf("%v", f)
			case i%2 == 1 && f.Elapsed > time.Second:
				t.Errorf("the other type waited: %v", f)
			case i%2 == 0 && f.Elapsed < time.Minute:
				t.Errorf("not snoozed: %v", f)
			}
		}
		if n := late.total(); n != 2 {
			t.Errorf("%d calls while it was down, 2 open it", n)
		}
	})
}

// A circuit that nobody has used for long is forgotten; no more than Keys are kept.
func TestBreakerForgetsKeys(t *testing.T) {
	layer := middleware.Breaker(middleware.BreakerOptions{Min: 1, Keys: 2, Key: func(d *pubsub.Delivery) string { return d.Type }})
	called := 0
	h := wrap(func(context.Context, *pubsub.Delivery) error { called++; return errPartner }, layer)
	for _, typ := range []string{"a", "a", "b", "a", "c", "a", "b"} { // b's is forgotten for c's
		_ = h(t.Context(), &pubsub.Delivery{Message: pubsub.Message{Type: typ}})
	}
	if called != 4 {
		t.Errorf("%d calls, want one for each of a, b, c and again b", called)
	}
}

// A probe whose goroutine ends does not block the next one.
func TestBreakerGoexitInAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		layer := middleware.Breaker(middleware.BreakerOptions{Min: 1, Open: time.Second})
		says := errPartner
		exit := false
		h := wrap(func(context.Context, *pubsub.Delivery) error {
			if exit {
				runtime.Goexit()
			}
			return says
		}, layer)
		_ = h(t.Context(), &pubsub.Delivery{})
		time.Sleep(2 * time.Second)
		exit = true
		var wg sync.WaitGroup
		wg.Go(func() { _ = h(t.Context(), &pubsub.Delivery{}) })
		wg.Wait()
		exit, says = false, nil
		if err := h(t.Context(), &pubsub.Delivery{}); err != nil {
			t.Errorf("the next probe: %v", err)
		}
	})
}

// Batches and Receive loops: their outcomes count like a handler's.
func TestBreakerInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pubsubtest.Open(t, opts(middleware.Breaker(middleware.BreakerOptions{Min: 4, Open: time.Minute})))
		start := time.Now()
		var msgs []pubsub.Message
		for i := range 50 {
			msgs = append(msgs, message(fmt.Sprint("m-", i)))
		}
		calls := 0
		fates := b.DeliverBatch(pubsub.Subscription{Topic: "t", Group: "g", Order: pubsub.OrderNone}, pubsub.Batch{Max: 10}, func(context.Context, []*pubsub.Delivery) error {
			calls++
			if time.Since(start) < 30*time.Second {
				return errPartner
			}
			return nil
		}, msgs...)
		for _, f := range fates {
			if !f.Acked || f.Attempts > 2 {
				t.Errorf("%v", f)
			}
		}
		if calls > 1+20 {
			t.Errorf("%d calls", calls)
		}
	})
}

func TestBreakerConcurrently(t *testing.T) {
	var changes tally
	layer := middleware.Breaker(middleware.BreakerOptions{Min: 5, Open: time.Microsecond, Probes: 3, OnChange: func(c middleware.Circuit) { changes.add(c.State.String()) }})
	var n atomic.Int64
	h := wrap(func(context.Context, *pubsub.Delivery) error {
		if n.Add(1)%1000 < 500 {
			return errPartner
		}
		return nil
	}, layer)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				if err := h(context.Background(), &pubsub.Delivery{}); err != nil {
					if o, d := pubsub.OutcomeOf(err); o == pubsub.OutcomePause && d <= 0 {
						t.Errorf("a pause of %v", d)
					}
				}
			}
		})
	}
	wg.Wait()
	if changes.of("open") == 0 || changes.of("probing") == 0 {
		t.Errorf("changes %v", changes.n)
	}
}
