package dlq

import (
	"context"
	"fmt"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Discard lets the dead letters that a filter selects count as done with, and returns how many. They stay where they are until their retention is over:
// no plan selects them any more, and Restore takes it back. What is discarded already, and what was resolved, is passed over, unless
// Filter.States names it. With an error some may be discarded; calling it again does the rest.
func (q *Queue) Discard(ctx context.Context, f Filter, n Note) (int, error) {
	if f.States == nil {
		f.States = []State{StateOpen, StatePending, StateFailedAgain}
	}
	return q.each(ctx, "discard", OpDiscard, f, n)
}

// Restore takes a Discard back, of those that a filter selects and that are discarded, and returns how many. Each has the state again that it had, or has got
// meanwhile.
func (q *Queue) Restore(ctx context.Context, f Filter, n Note) (int, error) {
	f.States = []State{StateDiscarded}
	return q.each(ctx, "restore", OpRestore, f, n)
}

// each writes one operation for all that a filter selects.
func (q *Queue) each(ctx context.Context, op string, what Operation, f Filter, n Note) (int, error) {
	if err := q.keepsState(op); err != nil {
		return 0, err
	}
	var ids []string
	seen := map[string]bool{}
	for r, err := range q.List(ctx, f) {
		if err != nil {
			return 0, err
		}
		if !seen[r.ID] {
			seen[r.ID] = true
			ids = append(ids, r.ID)
		}
	}
	told, err := q.tellOf(ctx, Entry{Operation: what}, ids, n)
	if err != nil {
		return told, q.fail(op, pubsub.CodeOf(err), fmt.Errorf("%d of %d are told: %w", told, len(ids), err), "call it again for the rest")
	}
	return told, nil
}
