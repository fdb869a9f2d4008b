package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/pubsubtest"
)

// A publisher that is not sure publishes again, with the same ID.
func ExampleDedup() {
	dedup := middleware.Dedup(middleware.DedupOptions{OnDrop: func(d *pubsub.Delivery) { fmt.Println("dropped", d.ID) }})
	h := wrap(func(_ context.Context, d *pubsub.Delivery) error {
		fmt.Println("handled", d.ID)
		return nil
	}, dedup)
	for _, id := range []string{"o-1", "o-1", "o-2"} {
		if err := h(context.Background(), &pubsub.Delivery{Message: pubsub.Message{ID: id}}); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// handled o-1
	// dropped o-1
	// handled o-2
}

// In each form: the second copy is dropped, a failure is not remembered.
func TestDedup(t *testing.T) {
	forms := map[string]func(b *pubsubtest.Broker, sub pubsub.Subscription, h pubsub.Handler, msgs ...pubsub.Message) []pubsubtest.Fate{
		"handler": func(b *pubsubtest.Broker, sub pubsub.Subscription, h pubsub.Handler, msgs ...pubsub.Message) []pubsubtest.Fate {
			return b.Deliver(sub, h, msgs...)
		},
		"batch": func(b *pubsubtest.Broker, sub pubsub.Subscription, h pubsub.Handler, msgs ...pubsub.Message) []pubsubtest.Fate {
			return b.DeliverBatch(sub, pubsub.Batch{}, func(ctx context.Context, ds []*pubsub.Delivery) error {
				errs := make([]error, len(ds))
				for i, d := range ds {
					errs[i] = h(ctx, d)
				}
				return &pubsub.BatchError{Errs: errs}
			}, msgs...)
		},
	}
	for name, deliver := range forms {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var dropped, handled tally
				b := pubsubtest.Open(t, opts(middleware.Dedup(middleware.DedupOptions{OnDrop: func(d *pubsub.Delivery) { dropped.add(d.Group + d.ID) }})))
				h := func(_ context.Context, d *pubsub.Delivery) error {
					if n := handled.add(d.Group + d.ID); d.ID == "fails" && n < 3 {
						return errFailed
					}
					return nil
				}
				sub := pubsub.Subscription{Topic: "t", Group: "g", Order: pubsub.OrderNone, Concurrency: 4, Retry: fixed(5, time.Second)}
				for _, f := range deliver(b, sub, h, message("a"), message("a"), message("fails"), message("a"), message("b")) {
					if !f.Acked {
						t.Errorf("%v", f)
					}
				}
				for id, want := range map[string][2]int{"ga": {1, 2}, "gb": {1, 0}, "gfails": {3, 0}} {
					if got := [2]int{handled.of(id), dropped.of(id)}; got != want {
						t.Errorf("%s was handled and dropped %v times, want %v", id, got, want)
					}
				}
			})
		})
	}
}

// A copy that comes while the first is handled waits: it is dropped when that succeeds, and handled when it fails.
func TestDedupConcurrentCopies(t *testing.T) {
	for name, first := range map[string]error{"succeeds": nil, "fails": pubsub.Permanent(errFailed)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := pubsubtest.Open(t, opts(middleware.Dedup(middleware.DedupOptions{Again: time.Second})))
				var calls, running, most atomic.Int32
				sub := pubsub.Subscription{Topic: "t", Group: "g", Order: pubsub.OrderNone, Concurrency: 3}
				start := time.Now()
				fates := b.Deliver(sub, func(context.Context, *pubsub.Delivery) error {
					most.Store(max(most.Load(), running.Add(1)))
					defer running.Add(-1)
					if calls.Add(1) == 1 {
						time.Sleep(1500 * time.Millisecond)
						return first
					}
					return nil
				}, message("a"), message("a"), message("a"))
				want, acked := int32(1), 3
				if first != nil {
					want, acked = 2, 2
				}
				for _, f := range fates {
					if f.Acked {
						acked--
					}
					if f.Attempts > 1 {
						t.Errorf("waiting counts: %v", f)
					}
				}
				if calls.Load() != want || acked != 0 || most.Load() != 1 {
					t.Errorf("%d calls, want %d; %d too few acked; %d at once", calls.Load(), want, acked, most.Load())
				}
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// store is one that can fail.
type store struct {
	middleware.DedupStore
	begin, done error
	loses       bool // the answer to the next claim
}

func (s *store) Begin(ctx context.Context, key middleware.DedupKey, claim uint64, lease time.Duration) (middleware.DedupState, error) {
	if s.begin != nil {
		return 0, s.begin
	}
	state, err := s.DedupStore.Begin(ctx, key, claim, lease)
	if s.loses {
		s.loses = false
		return 0, errFailed
	}
	return state, err
}

func (s *store) Done(ctx context.Context, key middleware.DedupKey, window time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.done != nil {
		return s.done
	}
	return s.DedupStore.Done(ctx, key, window)
}

func TestDedupStoreFails(t *testing.T) {
	errStore := errors.New("the store is down")
	s := &store{DedupStore: middleware.NewDedupStore(0), begin: errStore}
	var told error
	called := 0
	h := wrap(func(context.Context, *pubsub.Delivery) error { called++; return nil },
		middleware.Dedup(middleware.DedupOptions{Store: s, OnFail: func(_ *pubsub.Delivery, err error) { told = err }}))
	d := &pubsub.Delivery{Message: message("a")}
	if err := h(t.Context(), d); !errors.Is(err, errStore) || called != 0 {
		t.Errorf("Begin: %v, %d calls", err, called)
	}
	s.begin, s.done = nil, errStore
	if err := h(t.Context(), d); err != nil || !errors.Is(told, errStore) || called != 1 {
		t.Errorf("Done: %v, told %v, %d calls", err, told, called)
	}
	// a success is noted, also when the handler's context has ended meanwhile
	s.done, told = nil, nil
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h(ctx, &pubsub.Delivery{Message: message("b")}); err != nil || told != nil {
		t.Errorf("an ended context: %v, told %v", err, told)
	}
}

// A claim whose answer is lost is given back: the next try is handled, and does not wait for the end of the lease.
func TestDedupGivesALostClaimBack(t *testing.T) {
	s := &store{DedupStore: middleware.NewDedupStore(0), loses: true}
	called := 0
	h := wrap(func(context.Context, *pubsub.Delivery) error { called++; return nil }, middleware.Dedup(middleware.DedupOptions{Store: s}))
	for i := range 2 {
		if err := h(t.Context(), &pubsub.Delivery{Message: message("a")}); (err != nil) != (i == 0) || called != i {
			t.Errorf("try %d: %v, %d calls", i+1, err, called)
		}
	}
}

// The claim of a handler that ends its goroutine, or panics, goes with it.
func TestDedupGoexitAndPanic(t *testing.T) {
	says := func() error { runtime.Goexit(); return nil }
	h := wrap(func(context.Context, *pubsub.Delivery) error { return says() }, middleware.Dedup(middleware.DedupOptions{}))
	run := func() error { return h(context.Background(), &pubsub.Delivery{Message: message("a")}) }
	var wg sync.WaitGroup
	wg.Go(func() { _ = run() })
	wg.Wait()
	says = func() error { panic("here") }
	func() {
		defer func() { _ = recover() }()
		_ = run()
	}()
	called := false
	says = func() error { called = true; return nil }
	if err := run(); err != nil || !called {
		t.Errorf("%v, called %v", err, called)
	}
}

func TestDedupKeepsTopicsAndGroupsApart(t *testing.T) {
	called := 0
	h := wrap(func(context.Context, *pubsub.Delivery) error { called++; return nil }, middleware.Dedup(middleware.DedupOptions{}))
	for _, from := range [][2]string{{"t", "g"}, {"t", "h"}, {"u", "g"}, {"t", "g"}, {"u", "g"}} {
		_ = h(t.Context(), &pubsub.Delivery{Message: message("a"), Topic: from[0], Group: from[1]})
	}
	if called != 3 {
		t.Errorf("%d calls, want one for each of three groups", called)
	}
}

func TestDedupKey(t *testing.T) {
	called := 0
	h := wrap(func(context.Context, *pubsub.Delivery) error { called++; return nil },
		middleware.Dedup(middleware.DedupOptions{Key: func(d *pubsub.Delivery) string { return d.Headers.Get("order") }}))
	for _, order := range []string{"1", "1", "", "", "2"} {
		d := &pubsub.Delivery{Message: message(fmt.Sprint(called))}
		d.Headers.Set("order", order)
		_ = h(t.Context(), d)
	}
	if called != 4 {
		t.Errorf("%d calls, want one for 1, one for 2 and both without", called)
	}
}

// Window, lease and size of the memory store.
func TestDedupStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := middleware.NewDedupStore(2)
		key := func(id string) middleware.DedupKey { return middleware.DedupKey{Topic: "t", Group: "g", ID: id} }
		begin := func(id string, claim uint64, want middleware.DedupState) {
			t.Helper()
			if got, err := s.Begin(t.Context(), key(id), claim, time.Minute); got != want || err != nil {
				t.Errorf("%s: %v, %v, want %v", id, got, err, want)
			}
		}
		done := func(id string) {
			t.Helper()
			if err := s.Done(t.Context(), key(id), time.Hour); err != nil {
				t.Error(err)
			}
		}
		begin("a", 1, middleware.DedupNew)
		begin("a", 2, middleware.DedupRunning)
		time.Sleep(time.Minute) // its lease is over
		begin("a", 3, middleware.DedupNew)
		if err := s.Abort(t.Context(), key("a"), 1); err != nil { // of the first, late
			t.Error(err)
		}
		begin("a", 4, middleware.DedupRunning)
		if err := s.Abort(t.Context(), key("a"), 3); err != nil {
			t.Error(err)
		}
		begin("a", 5, middleware.DedupNew)
		done("a")
		begin("a", 6, middleware.DedupDone)
		time.Sleep(time.Hour)
		begin("a", 7, middleware.DedupNew)
		done("a")
		done("b")
		begin("a", 8, middleware.DedupDone) // looking does not keep it
		done("c")
		begin("b", 8, middleware.DedupDone)
		begin("c", 8, middleware.DedupDone)
		begin("a", 9, middleware.DedupNew)
	})
}

func TestDedupConcurrently(t *testing.T) {
	var handled tally
	h := wrap(func(_ context.Context, d *pubsub.Delivery) error { handled.add(d.ID); return nil }, middleware.Dedup(middleware.DedupOptions{}))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 1000 {
				_ = h(context.Background(), &pubsub.Delivery{Message: message(fmt.Sprint(i))})
			}
		})
	}
	wg.Wait()
	if n := handled.total(); n != 1000 {
		t.Errorf("handled %d messages, want each of 1000 once", n)
	}
}
