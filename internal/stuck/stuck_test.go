package stuck_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/internal/stuck"
)

func TestWatch(t *testing.T) {
	for name, c := range map[string]struct {
		call func(w *stuck.Watch, ctx context.Context, cancel func())
		cuts int
	}{
		"a call that has ended": {func(w *stuck.Watch, ctx context.Context, cancel func()) {
			w.Begin(ctx)
			w.End()
			cancel()
		}, 0},
		"a call that ends with its context": {func(w *stuck.Watch, ctx context.Context, cancel func()) {
			w.Begin(ctx)
			cancel()
			time.Sleep(stuck.After / 2)
			w.End()
		}, 0},
		"the next call, with another context": {func(w *stuck.Watch, ctx context.Context, cancel func()) {
			w.Begin(ctx)
			w.End()
			w.Begin(context.Background())
			cancel()
		}, 0},
		"a call that goes on": {func(w *stuck.Watch, ctx context.Context, cancel func()) {
			w.Begin(ctx)
			w.End()
			w.Begin(ctx)
			cancel()
		}, 1},
		"none, and then it is closed": {func(w *stuck.Watch, ctx context.Context, cancel func()) {
			w.Begin(ctx)
			w.Close()
			cancel()
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cuts := 0
				w := stuck.New(func() { cuts++ })
				ctx, cancel := context.WithCancel(t.Context())
				c.call(w, ctx, cancel)
				time.Sleep(2 * stuck.After)
				synctest.Wait()
				if cuts != c.cuts {
					t.Errorf("%d connections were cut, want %d", cuts, c.cuts)
				}
				cancel()
			})
		})
	}
}
