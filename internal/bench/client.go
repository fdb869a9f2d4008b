// Package bench measures clients of one broker against each other in one run: the shapes of work, the clock, the counting, the
// ratios and the report. It knows no broker and no client: package main in benchmarks/ plugs them in.
//
// What makes a figure worth printing is checked, not assumed. Only confirmed publishes count, and the broker must hold as many when
// the clock stops. The consume clock stops when the broker says that nothing is pending, and each message must have been
// handled by then. A run that finds anything else fails, and its figures are void.
package bench

import (
	"context"
	"errors"
)

// A Plug is an implementation that takes part in a run.
type Plug struct {
	Impl     string // its name in the rows; "raw" is the one that the others are compared with
	Settings string // how it is set up, for the reader

	// Open connects a fresh Client. Each repetition has its own.
	Open func(ctx context.Context) (*Client, error)
}

// Raw is the Impl of the broker's own client, used as an expert would.
const Raw = "raw"

// A Message is one of a workload. Payload is never changed, so that a client may keep it.
type Message struct {
	ID, Key, ContentType string
	Payload              []byte
}

// A Client is one implementation, connected to the broker under test. A field that is nil says that the implementation has no such
// call; rows that need it are left out, and the report says so. A call that cannot do what one shape asks for returns
// NotOffered with the reason.
type Client struct {
	// Prepare makes a topic with its groups, so that what is published from then on is kept for each of them.
	Prepare func(ctx context.Context, topic string, groups []string) error

	// Publish returns nil when the broker has confirmed m. It is called concurrently.
	Publish func(ctx context.Context, topic string, m Message) error

	// PublishBatch sends ms and returns how many the broker has confirmed. It is called by one goroutine, and keeps nothing of the slice.
	PublishBatch func(ctx context.Context, topic string, ms []Message) (int, error)

	// Fill is how a topic gets what is to be consumed: Batched, Async, or Blocking by 64 callers, of which each has keys of its own. "" = the
	// first of these that is offered, which is not the fastest where a batch is one message after the other.
	Fill Form

	// Stream opens an asynchronous publisher. confirmed is told that n more messages have their answer, from any goroutine.
	Stream func(ctx context.Context, topic string, confirmed func(n int, err error)) (Stream, error)

	// Consume returns once the group reads. handle is called for each message; once it has returned the message is settled.
	// stop settles what was handled and returns when nothing runs any more.
	Consume func(ctx context.Context, s Consume, handle func(payload []byte)) (stop func(context.Context) error, err error)

	// Retries says that Consume takes Consume.Fails: a message that fails is tried again later, and the others go on meanwhile.
	Retries bool

	// Pending is how many messages of the group the broker has not seen settled. nil: the broker does not say; the consume
	// clock then stops when stop has returned.
	Pending func(ctx context.Context, topic, group string) (int64, error)

	// Wire is how many bytes have crossed the network so far, in both directions. nil: not counted.
	Wire func() int64

	Close func(ctx context.Context) error
}

// A Stream is an asynchronous publisher, used by one goroutine.
type Stream struct {
	Send  func(m Message) error
	Flush func(ctx context.Context) error // returns when all have their answer
}

// A Consume says how to read.
type Consume struct {
	Topic, Group string
	Workers      int  // handlers that run at once
	Keyed        bool // the messages of a key one after another, in order
	Defaults     bool // the implementation's own settings instead of an expert's

	Shape Shape                                  // for Shape.RetryPolicy
	Loose bool                                   // with Keyed: later messages of a key may pass one that waits for its retry
	Fails func(payload []byte, attempt int) bool // whether an attempt fails, of which handle is not told; nil = none does
}

// NotOffered is the error of a call that an implementation cannot do as asked.
func NotOffered(why string) error { return &notOfferedError{why} }

type notOfferedError struct{ why string }

func (e *notOfferedError) Error() string { return "not offered: " + e.why }

// offered tells a reason for leaving a row out from a failure.
func offered(err error) (why string, ok bool) {
	if e, is := errors.AsType[*notOfferedError](err); is {
		return e.why, false
	}
	return "", true
}
