package pubsub

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Handler processes one message. nil acks it; Permanent, RetryAfter, Snooze and Pause say otherwise;
// any other error is retried by the subscription's policy. A panic counts as an error. Several run at once where
// Subscription.Concurrency allows it.
type Handler func(ctx context.Context, d *Delivery) error

// A BatchHandler processes several. An error goes for all; a *BatchError tells them apart, with as many Errs as the batch has messages.
// A panic counts as an error for all. Several run at once where Subscription.Concurrency allows it.
type BatchHandler func(ctx context.Context, batch []*Delivery) error

// ByType picks a handler by Message.Type. The entry "" takes the rest; without one they are dead-lettered.
func ByType(handlers map[string]Handler) Handler {
	return func(ctx context.Context, d *Delivery) error {
		h, ok := handlers[d.Type]
		if !ok {
			h = handlers[""]
		}
		if h == nil {
			return &outcome{kind: OutcomePermanent, err: fmt.Errorf("no handler for type %q", d.Type), reason: ReasonNoHandler}
		}
		return h(ctx, d)
	}
}

// outcome is an error that says what becomes of the message.
type outcome struct {
	kind     Outcome
	after    time.Duration
	err      error
	policy   *Policy // of RetryBy
	reason   Reason  // of OutcomePermanent
	category string  // of a Rule that classified it
	expected bool
}

func (o *outcome) Error() string {
	switch {
	case o.err != nil:
		return o.err.Error()
	case o.expected:
		return "expected failure"
	}
	return o.kind.String()
}

func (o *outcome) Unwrap() error { return o.err }

// Permanent sends the message to the dead letters now: trying again cannot help. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &outcome{kind: OutcomePermanent, err: err, reason: ReasonPermanent}
}

// GiveUp is Permanent with a reason of its own in the dead letter, for middleware. GiveUp(reason, nil) is nil.
func GiveUp(reason Reason, err error) error {
	if err == nil {
		return nil
	}
	return &outcome{kind: OutcomePermanent, err: err, reason: reason}
}

// RetryAfter counts as a failed attempt and delivers again after d instead of the policy's delay; where the policy's attempts are over it is given
// up like any other failure. A negative d is 0. An err of nil is a failure, too.
func RetryAfter(d time.Duration, err error) error {
	return &outcome{kind: OutcomeRetry, after: max(d, 0), err: err}
}

// Snooze delivers again after d. It is not a failure and costs no attempt. A negative d is 0; the reason may be nil.
func Snooze(d time.Duration, reason error) error {
	return &outcome{kind: OutcomeSnooze, after: max(d, 0), err: reason}
}

// Pause keeps the message, at no cost, to be the first again, and stops the whole subscription from fetching and handling for d:
// for a database that is down, not for a message that is bad.
func Pause(d time.Duration, reason error) error {
	return &outcome{kind: OutcomePause, after: max(d, 0), err: reason}
}

// RetryBy classifies err: it is retried by p instead of the subscription's own policy. The innermost classification
// wins, so an err that is classified already stays what it is. RetryBy(p, nil) is nil.
func RetryBy(p Policy, err error) error {
	if err == nil {
		return nil
	}
	p = p.withDefaults()
	return &outcome{kind: OutcomeRetry, policy: &p, err: err}
}

// Expected fails the message like err does, without raising an alarm: IsExpected tells observers. Expected(nil) is nil.
func Expected(err error) error {
	if err == nil {
		return nil
	}
	return &outcome{kind: OutcomeNone, err: err, expected: true}
}

// IsExpected says whether err was wrapped by Expected.
func IsExpected(err error) bool {
	for o := (*outcome)(nil); errors.As(err, &o); err = o.err {
		if o.expected {
			return true
		}
	}
	return false
}

// CategoryOf is the category of the rule that err matched in its subscription, as DeadLetter.Route, DeadLetter.OnDeadLetter and
// Middleware.Observe are told of it; "" = none, or an error that no subscription has seen.
func CategoryOf(err error) string {
	for o := (*outcome)(nil); errors.As(err, &o); err = o.err {
		if o.category != "" {
			return o.category
		}
	}
	return ""
}

// OutcomeOf tells middleware what an error already says, and after what delay; OutcomeNone = not yet classified.
func OutcomeOf(err error) (o Outcome, after time.Duration) {
	if err == nil {
		return OutcomeAck, 0
	}
	if c := classified(err); c != nil {
		return c.kind, c.after
	}
	return OutcomeNone, 0
}

// HandedBack tells middleware whether the consumer has ended ctx, a handler's or one made of it, because the message goes back to the broker: the time
// of a drain is over, a Receive loop was left with the message unsettled, or the lease is lost. An error that the handler returns then is no
// failure: no attempt is counted for it, and no layer should count it either. nil is still a success.
//
// It is false while ctx goes on, and for every other end: HandlerTimeout, and a deadline or a cancellation of a layer's or the handler's
// own. The first end counts: a ctx that a layer has ended before the drain did is not handed back.
func HandedBack(ctx context.Context) bool {
	cause := context.Cause(ctx)
	return errors.Is(cause, errDrained) || errors.Is(cause, ErrLeaseLost)
}

// classified finds the innermost classification of err, nil if there is none.
func classified(err error) *outcome {
	var found *outcome
	for o := (*outcome)(nil); errors.As(err, &o); err = o.err {
		if o.kind != OutcomeNone {
			found = o
		}
	}
	return found
}

// Outcome is what an error says about its message.
type Outcome uint8

const (
	OutcomeNone      Outcome = iota // not classified: the rules and the policy decide
	OutcomeAck                      // done with; what a nil error says
	OutcomePermanent                // to the dead letters now: Permanent, GiveUp
	OutcomeRetry                    // again, counted: RetryAfter, RetryBy
	OutcomeSnooze                   // again, not counted: Snooze
	OutcomePause                    // kept, and the subscription stands still: Pause
)

// String is the outcome in a word, as in "retry"; "unclassified" for OutcomeNone.
func (o Outcome) String() string {
	return enumText(o, "unclassified", "ack", "permanent", "retry", "snooze", "pause")
}
