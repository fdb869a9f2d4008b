package dedup_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/dedup"
)

// A store has one message.
type store struct {
	mu    sync.Mutex
	claim uint64
	done  bool
	lease time.Duration
	kept  time.Duration

	begin func() error // after it has the claim
	note  func(ctx context.Context) error
	state dedup.State // that it answers with, unless it is 0
}

func (s *store) Begin(_ context.Context, _ dedup.Key, claim uint64, lease time.Duration) (dedup.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.state != 0:
		return s.state, nil
	case s.done:
		return dedup.Done, nil
	case s.claim != 0:
		return dedup.Running, nil
	}
	s.claim, s.lease = claim, lease
	if s.begin != nil {
		return dedup.New, s.begin()
	}
	return dedup.New, nil
}

func (s *store) Done(ctx context.Context, _ dedup.Key, window time.Duration) error {
	if s.note != nil {
		if err := s.note(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done, s.claim, s.kept = true, 0, window
	return nil
}

func (s *store) Abort(ctx context.Context, _ dedup.Key, claim uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() == nil && s.claim == claim {
		s.claim = 0
	}
	return ctx.Err()
}

var errHere = errors.New("here")

func hour() time.Duration { return time.Hour }

// do says whether handle was called, too.
func do(ctx context.Context, o *dedup.Once, handle func() error) (r dedup.Result, called bool, err error) {
	r, err = o.Do(ctx, dedup.Key{Topic: "t", Group: "g", ID: "a"}, hour, func() error {
		called = true
		return handle()
	})
	return r, called, err
}

func good() error { return nil }

func TestOnceRemembersSuccessOnly(t *testing.T) {
	s := &store{}
	o := dedup.NewOnce(s, 0)
	for range 2 {
		if r, called, err := do(t.Context(), o, func() error { return errHere }); !called || !errors.Is(err, errHere) || r != (dedup.Result{}) {
			t.Fatalf("a failure: %+v, %v, called %v", r, err, called)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { _, _, _ = do(context.Background(), o, func() error { runtime.Goexit(); return nil }) })
	wg.Wait()
	func() {
		defer func() { _ = recover() }()
		_, _, _ = do(t.Context(), o, func() error { panic("here") })
	}()
	_, called, err := do(t.Context(), o, func() error {
		if r, called, err := do(t.Context(), o, good); called || err != nil || r.State != dedup.Running {
			t.Errorf("a copy of what is being handled: %+v, %v, called %v", r, err, called)
		}
		return nil
	})
	if err != nil || !called || s.lease != dedup.DefaultLease || s.kept != time.Hour {
		t.Errorf("%v, called %v; a lease of %v, remembered for %v", err, called, s.lease, s.kept)
	}
	if r, called, err := do(t.Context(), o, good); called || err != nil || r.State != dedup.Done {
		t.Errorf("what was handled: %+v, %v, called %v", r, err, called)
	}
}

// A store that has taken the claim and whose answer is lost does not hold the next try up for a whole lease.
func TestOnceGivesALostClaimBack(t *testing.T) {
	s := &store{begin: func() error { return errHere }}
	o := dedup.NewOnce(s, time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // as where the handler's time is over while it waits for the store
	if _, called, err := do(ctx, o, good); called || !errors.Is(err, errHere) {
		t.Fatalf("%v, called %v", err, called)
	}
	s.begin = nil
	if r, called, err := do(t.Context(), o, good); !called || err != nil {
		t.Errorf("the next try: %+v, %v, called %v", r, err, called)
	}
}

// A success is noted, also when the handler's context ends while the store is asked.
func TestOnceNotesAlsoWhereItsContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &store{note: func(ctx context.Context) error { cancel(); return ctx.Err() }}
	if r, _, err := do(ctx, dedup.NewOnce(s, 0), good); err != nil || r.Unnoted != nil || !s.done {
		t.Errorf("%+v, %v, noted %v", r, err, s.done)
	}
	s = &store{note: func(context.Context) error { return errHere }}
	if r, _, err := do(t.Context(), dedup.NewOnce(s, 0), good); err != nil || !errors.Is(r.Unnoted, errHere) {
		t.Errorf("a store that is down: %+v, %v", r, err)
	}
}

// What a store says that there is not is no success: the message would be acked and nobody have handled it.
func TestOnceTakesNoUnknownState(t *testing.T) {
	if r, called, err := do(t.Context(), dedup.NewOnce(&store{state: 7}, 0), good); called || err == nil {
		t.Errorf("%+v, %v, called %v", r, err, called)
	}
}
