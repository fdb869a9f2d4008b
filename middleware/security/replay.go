package security

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/omnibus-go/omnibus/internal/dedup"
	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/pubsub"
)

// ReplayOptions tunes Replay. The zero value guards one process against the last 100,000 messages that it has handled.
type ReplayOptions struct {
	Store    middleware.DedupStore         // what was handled; nil = NewDedupStore(0) of package middleware, see Replay for its bounds
	Window   time.Duration                 // what was signed longer ago is refused, for nobody remembers it any more; longer than retries and dead letters may take; 0 = 24h
	Lease    time.Duration                 // how long a handler's claim holds when its process dies; longer than it may run; 0 = 5min, as HandlerTimeout
	OnReplay func(*pubsub.Delivery)        // told of every message that was handled before; must not block; nil = nobody
	OnFail   func(*pubsub.Delivery, error) // told when a message was handled and the store could not note it; must not block; nil = nobody
}

const (
	defaultReplayWindow = 24 * time.Hour

	replayAgain  = time.Second // when to look again at a copy of what is running
	replayMargin = time.Minute // how much longer it is remembered: clocks differ
)

// Replay keeps a message that somebody has recorded from being handled again: what the group has handled successfully is acked without a handler, and
// OnReplay is told. Two messages are the same where their signatures cover the same, whatever else they say. Without Sign the subscription pauses.
//
// It cannot tell a recording from what the broker delivers twice, and need not: neither is handled again. Retries and replays of dead letters are handled, since
// their message has failed.
//
// The Store that is used where none is given is this process's, forgets all when it ends, and remembers the last 100,000 messages that were handled: at 1,000 a
// second a recording works again after 100 seconds, whatever Window says. A Store in memory needs room for what is handled within Window, see
// middleware.NewDedupStore. Members of a group, and what runs after a restart, need one that they share, such as redisstreams.NewDedupStore. A store that does
// not answer is an error of the message, which is retried. When it cannot note a success the message is acked all the same: it was handled, and OnFail is told
// that it could be again.
func Replay(opts ReplayOptions) pubsub.Middleware {
	m := pubsub.Middleware{Name: "replay", After: []string{"sign", "access"}, Why: "a forged message could take the place of a real one"}
	if opts.Window < 0 || opts.Lease < 0 {
		m.Err = errors.New("ReplayOptions has a negative duration")
	}
	if opts.Store == nil {
		opts.Store = middleware.NewDedupStore(0)
	}
	if opts.Window == 0 {
		opts.Window = defaultReplayWindow
	}
	g := &replayGuard{opts, dedup.NewOnce(opts.Store, opts.Lease)}
	m.Incoming = func(next pubsub.Handler) pubsub.Handler {
		return func(ctx context.Context, d *pubsub.Delivery) error { return g.handle(ctx, d, next) }
	}
	return m
}

type replayGuard struct {
	ReplayOptions
	once *dedup.Once
}

var errRunning = errors.New("the same message is being handled")

func (g *replayGuard) handle(ctx context.Context, d *pubsub.Delivery, next pubsub.Handler) error {
	v, ok := From(ctx)
	if !ok {
		return pubsub.Pause(configPause, errNoSign)
	}
	if time.Since(v.Issued) > g.Window {
		return pubsub.GiveUp(pubsub.ReasonVerification, ErrExpired)
	}
	key := dedup.Key{Topic: v.Topic, Group: d.Group, ID: "signed-" + strconv.FormatUint(v.digest[0], 36) + "-" + strconv.FormatUint(v.digest[1], 36)}
	// it is remembered until it could only be refused as signed too long ago
	window := func() time.Duration { return max(time.Until(v.Issued.Add(g.Window)), 0) + replayMargin }
	r, err := g.once.Do(ctx, key, window, func() error { return next(ctx, d) })
	switch {
	case err != nil:
		return err
	case r.State == dedup.Running:
		return pubsub.Snooze(replayAgain, errRunning)
	case r.State == dedup.Done && g.OnReplay != nil:
		g.OnReplay(d)
	case r.Unnoted != nil && g.OnFail != nil:
		g.OnFail(d, r.Unnoted)
	}
	return nil
}
