package pubsub

import (
	"context"
	"time"
)

// A Publisher sends messages. *Broker is one; Broker.Publisher makes more, each with its own options,
// order and Flush. All methods may be called concurrently.
//
// Messages of one key are stored in the order in which one goroutine published them, through retries and reconnects. A message
// whose fate is unknown is sent again until PublisherOptions.Timeout is over, unless a later one of its key was accepted meanwhile.
type Publisher interface {
	// Publish sends one message and returns nil only when the broker has accepted it at the declared durability.
	// ErrUnconfirmed means the fate is unknown; every other error that it was certainly not stored. Concurrent calls are sent together.
	Publish(ctx context.Context, topic string, msg Message) error

	// PublishBatch sends msgs in order. It is not atomic: if not all are accepted the error is a *BatchError.
	PublishBatch(ctx context.Context, topic string, msgs []Message) error

	// PublishAsync hands one message over and returns; it blocks only while the window is full, and ctx bounds only that and the middleware.
	// done is called exactly once, never from within PublishAsync unless the message was refused before it was handed over,
	// and must not block; one function can serve all messages. With a nil done a failure is reported by the next Flush or by Close.
	PublishAsync(ctx context.Context, topic string, msg Message, done func(Receipt, error))

	// Flush waits until every message handed over before has its fate. It returns the failures that no done was told of.
	Flush(ctx context.Context) error
}

// A Receipt is the broker's answer to one message. It is filled in as far as known even with an error.
type Receipt struct {
	Topic    string   // that it was published to
	ID       string   // Message.ID as sent; "" = it was refused before it got one
	Key      string   // Message.Key as sent
	Position Position // where the broker put it; zero where it does not say
}

// Ack is the weakest answer of the broker that counts as accepted. An adapter may give more, never less.
type Ack uint8

const (
	AckDurable Ack = iota // replicated or on disk, as far as the topic allows: the default
	AckLeader             // one broker has it; lost if that one fails
	AckNone               // handed to the network; nil then promises nothing
)

// String is "durable", "leader" or "none".
func (a Ack) String() string { return enumText(a, "durable", "leader", "none") }

// PublisherOptions tunes one publisher. The zero value is the Broker's own.
type PublisherOptions struct {
	Ack             Ack           // 0 = AckDurable
	DedupByID       bool          // a Message.ID sent twice is stored once within the window; needs Dedup, and an ID on each message
	MaxPending      int           // unconfirmed messages; at more publishing waits; 0 = 4096
	MaxPendingBytes int64         // the same in bytes, see Message.Size; 0 = 64 MiB; a single larger message passes alone
	Timeout         time.Duration // until an unconfirmed message becomes ErrUnconfirmed; 0 = 30s
}

const (
	defaultMaxPending     = 4096
	defaultPendingBytes   = 64 << 20
	defaultPublishTimeout = 30 * time.Second
)

func (o PublisherOptions) withDefaults() PublisherOptions {
	if o.MaxPending == 0 {
		o.MaxPending = defaultMaxPending
	}
	if o.MaxPendingBytes == 0 {
		o.MaxPendingBytes = defaultPendingBytes
	}
	if o.Timeout == 0 {
		o.Timeout = defaultPublishTimeout
	}
	return o
}

// A BatchError says which of several messages failed. PublishBatch returns it; a BatchHandler may, with one entry a message of its batch.
type BatchError struct {
	Errs []error // one per message, in order; nil = accepted, or handled
}
