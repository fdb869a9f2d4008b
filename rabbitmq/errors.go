package rabbitmq

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/internal/brokerurl"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A brokerError is what this adapter itself finds.
type brokerError struct {
	code  pubsub.Code
	final bool
	text  string
}

func (e *brokerError) Error() string { return "rabbitmq: " + e.text }

func says(code pubsub.Code, format string, args ...any) error {
	return &brokerError{code, true, fmt.Sprintf(format, args...)}
}

var (
	errGone     = &brokerError{pubsub.ErrUnavailable, false, "the session is closed"}
	errStale    = &brokerError{pubsub.ErrLeaseLost, true, "the delivery belongs to a session that has ended"}
	errCanceled = &brokerError{pubsub.ErrUnavailable, false, "the broker ended the consumer: its queue was deleted or moved, or a message was held for too long"}
	errFull     = &brokerError{pubsub.ErrExhausted, true, "the broker refused the message: a queue is full"}
	errNacked   = &brokerError{pubsub.ErrUnconfirmed, true, "the broker refused the message for one queue, because it is full: others may have it"}
	errReturned = &brokerError{pubsub.ErrUnroutable, true, "no queue takes the message"}
	errUnknown  = &brokerError{pubsub.ErrUnroutable, true, "there is no such topic"}
	errRest     = &brokerError{pubsub.ErrUnavailable, false, "messages that were handed back are to be delivered again"}
)

// Classify implements pubsub.Driver.
func (d *driver) Classify(err error) (pubsub.Code, bool) { return classify(err) }

func classify(err error) (pubsub.Code, bool) {
	if e, ok := errors.AsType[*brokerError](err); ok {
		return e.code, e.final
	}
	if e, ok := errors.AsType[*amqp.Error](err); ok {
		return classifyReply(e)
	}
	if brokerurl.Untrusted(err) || strings.Contains(err.Error(), alert) {
		return pubsub.ErrUnauthenticated, true
	}
	return pubsub.ErrUnavailable, false // the network's
}

const alert = "remote error: tls:" // the server does not like our certificate

// classifyReply reads what ended a channel or a connection.
func classifyReply(e *amqp.Error) (pubsub.Code, bool) {
	switch {
	case !e.Server && (e.Reason == amqp.ErrSASL.Reason || strings.Contains(e.Reason, alert)): // it offers none of our mechanisms, or wants a certificate
		return pubsub.ErrUnauthenticated, true
	case !e.Server: // the connection broke; in the middle of the handshake the client blames the credentials or the vhost, but the server would have said so
		return pubsub.ErrUnavailable, false
	}
	switch e.Code {
	case amqp.NotFound:
		if down(e) {
			return pubsub.ErrUnavailable, false
		}
		return pubsub.ErrNotFound, true
	case amqp.AccessRefused:
		if strings.Contains(e.Reason, "Login was refused") {
			return pubsub.ErrUnauthenticated, true
		}
		return pubsub.ErrDenied, true
	case amqp.PreconditionFailed:
		switch {
		case strings.Contains(e.Reason, "inequivalent arg"):
			return pubsub.ErrConflict, true
		case limitIn(e) > 0:
			return pubsub.ErrTooLarge, true
		case strings.Contains(e.Reason, "timed out"), strings.Contains(e.Reason, "timeout"): // of a delivery that was not acknowledged
			return pubsub.ErrUnavailable, false
		}
		return pubsub.ErrBroker, true
	case amqp.NotAllowed:
		switch {
		case strings.Contains(e.Reason, "limit"):
			return pubsub.ErrExhausted, false
		case strings.Contains(e.Reason, "not found"):
			return pubsub.ErrNotFound, true
		}
		return pubsub.ErrDenied, true
	case amqp.NotImplemented:
		return pubsub.ErrUnsupported, true
	case amqp.ResourceError:
		return pubsub.ErrExhausted, false
	case amqp.ContentTooLarge:
		return pubsub.ErrTooLarge, true
	case amqp.ConnectionForced, amqp.InternalError, amqp.ResourceLocked, amqp.ChannelError, amqp.UnexpectedFrame:
		return pubsub.ErrUnavailable, false
	}
	return pubsub.ErrBroker, false
}

// is says whether err is that reply of the server.
func is(err error, code int) bool {
	e, ok := errors.AsType[*amqp.Error](err)
	return ok && e.Server && e.Code == code
}

// down says whether err is that a queue is on a node that does not run, which the server calls not found, too.
func down(err error) bool {
	e, ok := errors.AsType[*amqp.Error](err)
	return ok && e.Server && e.Code == amqp.NotFound && strings.Contains(e.Reason, "down or inaccessible")
}

// limitIn is the largest message that the server says it takes when it refuses one, 0 if e says something else.
func limitIn(e *amqp.Error) int64 {
	_, text, ok := strings.Cut(e.Reason, "larger than configured max size ")
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
