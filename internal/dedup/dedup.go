// Package dedup has what packages middleware and middleware/security have in common to let a message be handled once, and the types by which they ask a store
// what was handled. They lie here, so that an adapter can have such a store and import nothing but internal packages.
package dedup

import (
	"context"
	"time"
)

// A Key names a message within a group.
type Key struct{ Topic, Group, ID string }

// State is what a store knows of a message.
type State uint8

const (
	New     State = iota // nobody has it: it is the caller's now
	Running              // somebody's handler has it
	Done                 // it was handled within the window
)

// A Store is a middleware.DedupStore.
type Store interface {
	Begin(ctx context.Context, key Key, claim uint64, lease time.Duration) (State, error)
	Done(ctx context.Context, key Key, window time.Duration) error
	Abort(ctx context.Context, key Key, claim uint64) error
}
