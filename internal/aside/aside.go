// Package aside marks a consumer that one of our packages keeps for itself: where it ends by itself whoever keeps it says so, and Broker.Run goes on.
package aside

import "context"

type key struct{}

// Context is for Subscribe.
func Context(ctx context.Context) context.Context { return context.WithValue(ctx, key{}, true) }

// Is says whether ctx is one of Context.
func Is(ctx context.Context) bool { return ctx.Value(key{}) != nil }
