package pubsub

import (
	"errors"
	"fmt"
	"strings"
)

// A Code is a kind of error, from a closed set. A Code is itself an error value, for errors.Is:
//
//	if errors.Is(err, pubsub.ErrUnconfirmed) { ... }
type Code uint8

const (
	ErrBroker          Code = iota + 1 // the broker says something that fits no other code; the native error is inside
	ErrInvalid                         // the call is wrong, whatever the broker
	ErrUnsupported                     // this broker cannot; see Capabilities
	ErrNotFound                        // topic, group or queue does not exist
	ErrConflict                        // exists with other settings
	ErrUnauthenticated                 // who are you
	ErrDenied                          // you may not
	ErrUnavailable                     // broker not reachable or not ready; trying again may help
	ErrCanceled                        // ctx ended first; a message was certainly not sent
	ErrUnconfirmed                     // sent, but no answer: the message may or may not be there
	ErrUnroutable                      // nobody would receive it
	ErrTooLarge                        // above the broker's limit
	ErrExhausted                       // quota, disk or memory of the broker is used up
	ErrRefused                         // a middleware refused it
	ErrLeaseLost                       // the broker has given the message to someone else
	ErrTimeout                         // our own deadline, e.g. a handler that outlives Close
	ErrClosed                          // the broker, publisher or consumer is closed
)

var codeText = [...]string{
	"no error", "broker error", "invalid", "not supported", "not found", "conflict", "unauthenticated", "denied", "unavailable",
	"canceled", "unconfirmed", "unroutable", "too large", "exhausted", "refused by middleware", "lease lost", "timed out", "closed",
}

// Error is the code in words.
func (c Code) Error() string {
	if int(c) >= len(codeText) {
		return "unknown code"
	}
	return codeText[c]
}

// CodeOf returns the code of err; 0 for nil, ErrBroker for an error without one. Of a *BatchError it is that of the first message that failed.
func CodeOf(err error) Code {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	if c, ok := errors.AsType[Code](err); ok {
		return c
	}
	return ErrBroker
}

// An Error is every error of this module. Credentials never appear in it.
type Error struct {
	Op     string // "open", "publish", "subscribe", "settle", ...
	Broker string // adapter: "kafka", "nats", ...; "" = none was asked
	Topic  string // that it is about; "" = none, or several
	Code   Code   // the kind; errors.Is(err, code) finds it
	Err    error  // the native error or the reason; may be nil
	Hint   string // what to do about it, where that is known
}

// Error is "pubsub: ", what was asked, the code in words, the reason, and the hint in parentheses.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("pubsub: " + e.Op)
	if e.Topic != "" {
		fmt.Fprintf(&b, " %q", e.Topic)
	}
	if e.Broker != "" {
		b.WriteString(" on " + e.Broker)
	}
	b.WriteString(": " + e.Code.Error())
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

// Unwrap is Err: errors.Is and errors.As find the native error.
func (e *Error) Unwrap() error { return e.Err }

// Is lets errors.Is compare with a Code.
func (e *Error) Is(target error) bool { c, ok := target.(Code); return ok && c == e.Code }

// Error says how many have failed, and why the first one has.
func (e *BatchError) Error() string {
	n, first := 0, -1
	for i, err := range e.Errs {
		if err != nil {
			if n++; first < 0 {
				first = i
			}
		}
	}
	if n == 0 {
		return "pubsub: batch: no failures"
	}
	return fmt.Sprintf("pubsub: %d of %d messages failed, first message %d: %v", n, len(e.Errs), first, e.Errs[first])
}

// Unwrap is Errs, nil entries included: errors.Is finds a code that one of the messages failed with.
func (e *BatchError) Unwrap() []error { return e.Errs }

// invalid is the caller's own fault.
func invalid(op, topic string, err error, hint string) *Error {
	return &Error{Op: op, Topic: topic, Code: ErrInvalid, Err: err, Hint: hint}
}
