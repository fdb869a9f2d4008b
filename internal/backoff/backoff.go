// Package backoff waits between attempts to reach something: longer each time, and by chance, so that many clients do not come at once.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// A Backoff counts attempts. Its zero value does not wait. Not for concurrent use.
type Backoff struct {
	Initial, Max time.Duration
	attempt      int
}

// Next is how long to wait now: between half of and the whole of Initial doubled per call, at most Max.
func (b *Backoff) Next() time.Duration {
	d := b.Initial << min(b.attempt, 30)
	if d > b.Max || d < b.Initial {
		d = b.Max
	}
	b.attempt++
	if d <= 1 {
		return d
	}
	return d/2 + rand.N(d/2)
}

// Reset starts again from Initial.
func (b *Backoff) Reset() { b.attempt = 0 }

// Wait sleeps for Next, or until ctx ends.
func (b *Backoff) Wait(ctx context.Context) error {
	t := time.NewTimer(b.Next())
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
