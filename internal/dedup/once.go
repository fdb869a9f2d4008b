package dedup

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// DefaultLease is how long a claim holds where nobody says otherwise: as long as a handler may run by default.
const DefaultLease = 5 * time.Minute

// grace is for telling the store how it ended, whatever has become of the handler's context.
const grace = 5 * time.Second

// Once lets a message be handled once, as far as its store knows. Safe for concurrent use.
type Once struct {
	store  Store
	lease  time.Duration
	claims atomic.Uint64
}

// NewOnce makes one; a lease of 0 is DefaultLease.
func NewOnce(store Store, lease time.Duration) *Once {
	if lease == 0 {
		lease = DefaultLease
	}
	o := &Once{store: store, lease: lease}
	o.claims.Store(rand.Uint64()) // other processes begin elsewhere
	return o
}

// A Result is what came of Do.
type Result struct {
	State   State // what the store knew of the message: only New was handled here
	Unnoted error // why the store could not note a success: the message was handled all the same
}

// Do calls handle, unless somebody is handling the message or has handled it. Only a success is remembered, for the window that is asked for then; after a
// failure, a panic and runtime.Goexit the next copy is handled. An error is that of handle, or of a store that does not answer; then handle was not called.
func (o *Once) Do(ctx context.Context, key Key, window func() time.Duration, handle func() error) (Result, error) {
	claim := o.claims.Add(1)
	state, err := o.store.Begin(ctx, key, claim, o.lease)
	if err == nil && state > Done {
		err = fmt.Errorf("it answers with state %d, which there is not", state)
	}
	if err != nil {
		o.abort(ctx, key, claim) // it may have the claim, and only its answer be lost: then the next try would wait for the whole lease
		return Result{}, fmt.Errorf("the store of what was handled: %w", err)
	}
	if state != New {
		return Result{State: state}, nil
	}
	handled := false
	defer func() {
		if !handled {
			o.abort(ctx, key, claim)
		}
	}()
	if err := handle(); err != nil {
		return Result{}, err
	}
	handled = true
	return Result{Unnoted: o.note(ctx, key, window())}, nil
}

// abort gives a claim back. Where the store does not hear of it, the lease ends it.
func (o *Once) abort(ctx context.Context, key Key, claim uint64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	_ = o.store.Abort(ctx, key, claim)
}

// note tells the store of a success, once more where ctx has ended by then.
func (o *Once) note(ctx context.Context, key Key, window time.Duration) error {
	err := o.store.Done(ctx, key, window)
	if err == nil || ctx.Err() == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	return o.store.Done(ctx, key, window)
}
