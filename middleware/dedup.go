package middleware

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/omnibus-go/omnibus/internal/dedup"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A DedupKey names a message within a group, by its Topic, Group and ID.
type DedupKey = dedup.Key

// DedupState is what a store knows of a message.
type DedupState = dedup.State

const (
	DedupNew     = dedup.New     // nobody has it: it is the caller's now
	DedupRunning = dedup.Running // somebody's handler has it
	DedupDone    = dedup.Done    // it was handled within the window
)

// A DedupStore remembers which messages were handled. Many goroutines call it; a store that others share must be atomic in itself: of two
// that begin at once one gets DedupNew.
type DedupStore interface {
	// Begin claims the message for claim until Done, Abort, or until lease is over.
	Begin(ctx context.Context, key DedupKey, claim uint64, lease time.Duration) (DedupState, error)
	// Done remembers for window that the message was handled, whoever claims it.
	Done(ctx context.Context, key DedupKey, window time.Duration) error
	// Abort ends claim, if the message is still claimed by it.
	Abort(ctx context.Context, key DedupKey, claim uint64) error
}

// DedupOptions tunes Dedup. The zero value is safe.
type DedupOptions struct {
	Store  DedupStore                    // nil = NewDedupStore(0), which knows what this process has handled
	Window time.Duration                 // how long a handled message is remembered; 0 = 10min
	Lease  time.Duration                 // how long a handler's claim holds when its process dies; longer than it may run; 0 = 5min, as HandlerTimeout
	Again  time.Duration                 // when to look again at a copy of what is running; 0 = 1s
	Key    func(*pubsub.Delivery) string // what makes two messages the same, within topic and group; nil = Message.ID; "" = nothing does
	OnDrop func(*pubsub.Delivery)        // told of every message that is dropped as a duplicate; must not block; nil = nobody
	OnFail func(*pubsub.Delivery, error) // told when a message was handled and the store could not note it; must not block; nil = nobody
}

const (
	defaultDedupWindow = 10 * time.Minute
	defaultDedupAgain  = time.Second
)

// Dedup lets the handler have a message once: what it has handled successfully within Window is acked without it, once per group. A
// copy that comes while the handler has the first is snoozed, which counts nothing, and looked at again after Again: it is dropped when the first
// succeeds, and handled when it fails. A failure of any kind, a dead letter included, is not remembered: retries and replays are handled. (A
// replay of what has succeeded is dropped, within Window.)
//
// A store that does not answer is an error of the message, which is retried. When it cannot note a success the message is acked all the
// same: it was handled.
//
// It makes duplicates rare, not impossible: a process that dies between the end of its handler and Done leaves one. Do not use it where the handler
// writes to a database: there a unique key on the message's id, in the handler's own transaction, is exact. Do not use the memory store
// where members compete for messages and the duplicate may reach another.
//
// With the memory store a message costs about 800 ns and no allocation.
func Dedup(opts DedupOptions) pubsub.Middleware {
	m := pubsub.Middleware{
		Name: "dedup", After: []string{"sign", "encrypt", "breaker"},
		Why: "a forged message could take the place of a real one, and an open circuit would ask the store for nothing",
	}
	for name, d := range map[string]time.Duration{"Window": opts.Window, "Lease": opts.Lease, "Again": opts.Again} {
		if d < 0 {
			m.Err = fmt.Errorf("%s is %v; it cannot be negative", name, d)
		}
	}
	if opts.Store == nil {
		opts.Store = NewDedupStore(0)
	}
	if opts.Window == 0 {
		opts.Window = defaultDedupWindow
	}
	if opts.Again == 0 {
		opts.Again = defaultDedupAgain
	}
	s := &dedupLayer{opts, dedup.NewOnce(opts.Store, opts.Lease)}
	m.Incoming = func(next pubsub.Handler) pubsub.Handler {
		return func(ctx context.Context, d *pubsub.Delivery) error { return s.handle(ctx, d, next) }
	}
	return m
}

type dedupLayer struct {
	DedupOptions
	once *dedup.Once
}

var errRunning = errors.New("another copy of the message is being handled")

func (s *dedupLayer) handle(ctx context.Context, d *pubsub.Delivery, next pubsub.Handler) error {
	key := DedupKey{Topic: d.Topic, Group: d.Group, ID: d.ID}
	if s.Key != nil {
		key.ID = s.Key(d)
	}
	if key.ID == "" {
		return next(ctx, d)
	}
	r, err := s.once.Do(ctx, key, s.window, func() error { return next(ctx, d) })
	switch {
	case err != nil:
		return err
	case r.State == DedupRunning:
		return pubsub.Snooze(s.Again, errRunning)
	case r.State == DedupDone && s.OnDrop != nil:
		s.OnDrop(d)
	case r.Unnoted != nil && s.OnFail != nil:
		s.OnFail(d, r.Unnoted)
	}
	return nil
}

func (s *dedupLayer) window() time.Duration { return s.Window }
