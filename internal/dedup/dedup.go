// Package dedup has the types by which package middleware asks a store what was handled. They lie here, so that an adapter can have such a store and import
// nothing but internal packages.
package dedup

// A Key names a message within a group.
type Key struct{ Topic, Group, ID string }

// State is what a store knows of a message.
type State uint8

const (
	New     State = iota // nobody has it: it is the caller's now
	Running              // somebody's handler has it
	Done                 // it was handled within the window
)
