package middleware

import (
	"context"
	"errors"
	"fmt"

	"github.com/omnibus-go/omnibus/pubsub"
)

// withCause adds, as the engine does for the subscription's rules, that it was the handler's time that was over.
func withCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, pubsub.ErrTimeout) && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// unclassified says whether err says nothing yet about what is to become of its message.
func unclassified(err error) bool {
	o, _ := pubsub.OutcomeOf(err)
	return o == pubsub.OutcomeNone
}

// isTimeout says whether somebody waited too long for something else: the message is not to blame.
func isTimeout(err error) bool {
	if errors.Is(err, pubsub.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && t.Timeout()
}
