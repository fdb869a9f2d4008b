package backoff_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/internal/backoff"
)

func TestNextGrowsWithinItsBounds(t *testing.T) {
	b := backoff.Backoff{Initial: 100 * time.Millisecond, Max: time.Second}
	for round := range 2 {
		for i, top := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
			top *= time.Millisecond
			if d := b.Next(); d < top/2 || d > top {
				t.Fatalf("round %d, wait %d is %v, want between %v and %v", round, i, d, top/2, top)
			}
		}
		b.Reset()
	}
	for range 100 { // no overflow
		if d := b.Next(); d > time.Second || d < 0 {
			t.Fatalf("%v is out of bounds", d)
		}
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := backoff.Backoff{Initial: time.Hour, Max: time.Hour}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		if err := (&backoff.Backoff{}).Wait(t.Context()); err != nil {
			t.Fatalf("the zero value: %v", err)
		}
	})
}
