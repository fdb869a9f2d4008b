package pubsub

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"
)

// A Subscriber consumes messages. *Broker is one.
type Subscriber interface {
	// Subscribe returns once the subscription is live: what is published from then on is delivered to h. It has 10 s where ctx has no deadline.
	// When ctx ends the consumer drains: no new deliveries, running handlers finish.
	Subscribe(ctx context.Context, sub Subscription, h Handler) (*Consumer, error)

	// SubscribeBatch is Subscribe for a handler that takes several messages per call.
	SubscribeBatch(ctx context.Context, sub Subscription, batch Batch, h BatchHandler) (*Consumer, error)

	// Receive returns once the subscription is live. The loop pulls; leaving it, or ending ctx, drains.
	// The sequence can be ranged over once.
	Receive(ctx context.Context, sub Subscription) (iter.Seq2[Lease, error], error)
}

// A Subscription says what to consume and how failures are handled. Topic and Group are required;
// the zero value of every other field is safe, and the same on every broker that has Redelivery.
type Subscription struct {
	Topic string // required; or a pattern: "*" one segment, ">" the rest (needs Patterns)
	Group string // required: its members share the messages, each group gets all; or Broadcast. It does not begin with "_"

	Start       Start // where a group begins that the broker does not know yet; zero = FromNow
	Order       Order // zero = OrderByKey
	Concurrency int   // handlers running at once; 0 = 1, in order of arrival

	MaxInFlight      int           // messages held, running or waiting; 0 = max(256, 16×Concurrency); with retry tiers see Capabilities
	MaxParked        int           // of those, how many may wait behind a key that is being retried; 0 = half
	OnParkedFull     ParkedFull    // zero = ParkBlock: fetching stops until there is room, visible in State
	MaxInFlightBytes int64         // the same in bytes, see Message.Size; one fetch may go beyond it; 0 = 64 MiB
	AckWait          time.Duration // how long a dead consumer keeps a message from others; renewed while a handler runs; 0 = 30s

	HandlerTimeout  time.Duration   // its context ends with ErrTimeout as its cause; then it is a failure; 0 = 5min; Forever = none
	AfterDeadLetter AfterDeadLetter // what becomes of the key's later messages; zero = Continue

	Retry      Policy     // for every failure that no rule matches; zero = 10 attempts, 1s to 5min: 4 minutes on average
	Rules      []Rule     // policies by kind of failure; first match wins
	DeadLetter DeadLetter // zero = the group's own dead letters on the same broker

	Use []Middleware // inside the Broker's own; only the Incoming halves apply
}

// Order is what is kept in order while several handlers run.
type Order uint8

const (
	OrderByKey      Order = iota // one key, one handler at a time in the whole group; a key waits while its message is retried
	OrderPerMember               // as OrderByKey, but only among the messages that one member gets; members compete
	OrderByKeyLoose              // as OrderByKey, but later messages of a key may pass one that is waiting for its retry, see Capabilities.Tiers
	OrderNone                    // any order
	OrderStrict                  // whole partition or topic, one at a time
)

// AfterDeadLetter says what becomes of later messages of a key when one of them is dead-lettered.
//
// BlockKey needs OrderByKey or OrderStrict, and the group's own dead letters: neither Broadcast nor DeadLetter.Topic, Route, To or Drop, and a Redact that
// leaves ID, Key and the headers of dead letters and replays, or nothing is stored. A key is blocked as long as one of its dead letters is open or pending,
// whatever its reason and wherever the process is that stored it: the broker has that, and it is read when Subscribe begins to get messages and whenever a lane
// comes. Its later messages become dead letters, in order, without a call of the handler, with the reason "key-blocked". Other keys go on, and messages without
// a key. State.BlockedKeys counts keys.
//
// A key opens when its dead letters are resolved or discarded. A replay of one is handled unless one of its key that comes before it is open still: then it
// follows to the dead letters again. So replay a key's dead letters in order, which package dlq does, and discard those that are not to be handled. One that fails again
// keeps its turn, and so does an edited one. A message that was on its way to the dead letters when its key opened gets there, and blocks it again.
//
// A message with a key that is suspected of taking its process down becomes a dead letter, "process-killer", without the proof that the quarantine would give: its
// followers would pass it there. It was delivered more often than Retry.MaxAttempts without an outcome, which many lost sessions in a row bring about, too.
//
// Outcomes of this consumer count at once, and not at all where they cannot be stored. What others do counts within 2 s and the reading, a purge or the end of retention
// within a minute, or 20 times as long as reading all dead letters takes. While no key is blocked nothing is read but when a lane comes: what is restored or
// imported blocks a key from then on. About 500 bytes are held of each dead letter of the group that has a key, and 100 of each outcome.
type AfterDeadLetter uint8

const (
	Continue AfterDeadLetter = iota // they are handled
	BlockKey                        // they follow to the dead letters, reason key-blocked, until it is resolved or discarded
)

// String is "continue" or "block-key".
func (a AfterDeadLetter) String() string { return enumText(a, "continue", "block-key") }

// ParkedFull says what happens when the followers of waiting keys fill MaxParked.
type ParkedFull uint8

const (
	ParkBlock      ParkedFull = iota // fetch nothing more until a key is free
	ParkDeadLetter                   // dead-letter the waiting message; its followers go on
)

// Broadcast as a Group gives this consumer alone a copy of everything, from now on. Nothing is kept for it
// while it is away, so it is never the default.
const Broadcast = "*"

// Start is where a new group begins to read. The zero value is FromNow.
type Start struct {
	kind StartKind
	time time.Time
	pos  Position
}

// FromNow starts with what is published from then on.
func FromNow() Start { return Start{} }

// DeadLetter says where messages go that are out of attempts or fail for good. A dead letter has payload, key and headers as they came, and
// headers of its own (omnibus-dlq-...) that say why, see package dlq, which reads them. One that is too large for its place is tried again without the
// stack, without the history of its failures, with less of the error's text, and without that text, in this order; what came is never shortened. Where
// that does not help there is one without payload and headers, which says where the message is; one more from each member that gets the message
// while there is no room, also after a restart, and they stay. What cannot be stored whole is kept, tried again every few seconds, and State says Blocked.
//
// A message with the header omnibus-replay-of is the replay of a dead letter. When its handler has succeeded the engine stores that beside the group's dead
// letters, and acks it then: while the broker is away for a while it stays held, and where that is denied or the adapter has no place for it, it is
// acked, and an error is logged.
//
// Subscribe looks at Topic before it begins, as Options.Manage of its broker says: it is made, or must be there. It is refused with ErrTooLarge where
// the broker of To has a smaller Capabilities.MaxMessage. A broker that is away is only logged: what is given up is kept until it is back; one that
// does not answer counts as away after half of the time that Subscribe has, which is 10s where its ctx has no deadline. Where Route leads shows when
// it does, and a Publisher that is no Broker's is not asked.
type DeadLetter struct {
	Topic        string                        // "" = the group's own
	Route        func(*Delivery, error) string // picks another topic by failure; nil or "" = Topic
	To           Publisher                     // where Topic and Route are; nil = the same broker
	OnDeadLetter func(*Delivery, error)        // told after it is stored; must not block
	Redact       func(*Message)                // edits the record before it is stored, or shortened for its place
	Drop         bool                          // discard them instead; excludes the others but OnDeadLetter
}

// Forever is no limit.
const Forever time.Duration = 1<<63 - 1

// FromEarliest starts with everything kept. Needs History.
func FromEarliest() Start { return Start{kind: StartEarliest} }

// FromTime starts with what was published at t or later. Needs History.
func FromTime(t time.Time) Start { return Start{kind: StartTime, time: t} }

// FromPosition starts with the message at p. Needs History.
func FromPosition(p Position) Start { return Start{kind: StartPosition, pos: p} }

const (
	defaultInFlight       = 256
	inFlightEach          = 16 // for a worker: where handlers take 1 ms and acks another round trip, 4 left workers without work
	defaultInFlightBytes  = 64 << 20
	defaultAckWait        = 30 * time.Second
	defaultHandlerTimeout = 5 * time.Minute
)

// InFlight is how many messages are held at most: MaxInFlight, or its default.
func (s Subscription) InFlight() int {
	if s.MaxInFlight == 0 {
		return max(defaultInFlight, inFlightEach*s.Concurrency)
	}
	return s.MaxInFlight
}

func (s Subscription) withDefaults() Subscription {
	if s.Concurrency == 0 {
		s.Concurrency = 1
	}
	s.MaxInFlight = s.InFlight()
	if s.MaxParked == 0 {
		s.MaxParked = max(s.MaxInFlight/2, 1)
	}
	if s.MaxInFlightBytes == 0 {
		s.MaxInFlightBytes = defaultInFlightBytes
	}
	if s.AckWait == 0 {
		s.AckWait = defaultAckWait
	}
	if s.HandlerTimeout == 0 {
		s.HandlerTimeout = defaultHandlerTimeout
	}
	s.Retry = s.Retry.withDefaults()
	s.Rules = slices.Clone(s.Rules)
	for i := range s.Rules {
		s.Rules[i].Retry = s.Rules[i].policy()
	}
	return s
}

// Check is nil, or an error that names the first field that is wrong whatever the broker. Layers are not looked at, see CheckLayers.
func (s Subscription) Check() error { return s.check() }

func (s Subscription) check() error {
	if err := checkFilter(s.Topic); err != nil {
		return err
	}
	if s.Group != Broadcast {
		if err := checkGroup(s.Group); err != nil {
			return err
		}
		if n := len(s.Topic) + len(s.Group); n > maxName {
			return fmt.Errorf("topic and group have %d bytes, at most %d together", n, maxName)
		}
	}
	switch {
	case s.Order > OrderStrict:
		return fmt.Errorf("Order %d is none of the orders", s.Order)
	case s.Concurrency < 0:
		return fmt.Errorf("Concurrency is %d; it cannot be negative", s.Concurrency)
	case s.MaxInFlight < 0:
		return fmt.Errorf("MaxInFlight is %d; it cannot be negative", s.MaxInFlight)
	case s.MaxInFlight > 0 && s.MaxInFlight < s.Concurrency:
		return fmt.Errorf("MaxInFlight of %d is less than Concurrency of %d", s.MaxInFlight, s.Concurrency)
	case s.MaxParked < 0, s.MaxParked > s.withDefaults().MaxInFlight:
		return fmt.Errorf("MaxParked is %d; it is between 0 and MaxInFlight", s.MaxParked)
	case s.OnParkedFull > ParkDeadLetter:
		return fmt.Errorf("OnParkedFull %d is neither ParkBlock nor ParkDeadLetter", s.OnParkedFull)
	case s.AfterDeadLetter > BlockKey:
		return fmt.Errorf("AfterDeadLetter %d is neither Continue nor BlockKey", s.AfterDeadLetter)
	case s.AfterDeadLetter == BlockKey && s.Order != OrderByKey && s.Order != OrderStrict:
		return fmt.Errorf("AfterDeadLetter BlockKey needs OrderByKey or OrderStrict: with order %v a key has no one sequence", s.Order)
	case s.AfterDeadLetter == BlockKey && s.Group == Broadcast:
		return errors.New("AfterDeadLetter BlockKey needs a group: a Broadcast has no dead letters that outlive it")
	case s.AfterDeadLetter == BlockKey && (s.DeadLetter.Topic != "" || s.DeadLetter.Route != nil || s.DeadLetter.To != nil || s.DeadLetter.Drop):
		return errors.New("AfterDeadLetter BlockKey needs the group's own dead letters: it excludes DeadLetter.Topic, Route, To and Drop")
	case s.MaxInFlightBytes < 0:
		return fmt.Errorf("MaxInFlightBytes is %d; it cannot be negative", s.MaxInFlightBytes)
	case s.AckWait < 0, s.AckWait > 0 && s.AckWait < minAckWait:
		return fmt.Errorf("AckWait is %v; it is at least %v, or 0 for the default", s.AckWait, minAckWait)
	case s.HandlerTimeout < 0:
		return fmt.Errorf("HandlerTimeout is %v; it cannot be negative (Forever = none)", s.HandlerTimeout)
	case s.DeadLetter.Drop && (s.DeadLetter.Topic != "" || s.DeadLetter.Route != nil || s.DeadLetter.To != nil || s.DeadLetter.Redact != nil):
		return errors.New("DeadLetter.Drop excludes Topic, Route, To and Redact")
	case s.DeadLetter.To != nil && s.DeadLetter.Topic == "":
		return errors.New("DeadLetter.To needs DeadLetter.Topic: the topic there")
	case s.DeadLetter.Route != nil && s.DeadLetter.Topic == "" && s.Group == Broadcast:
		return errors.New("DeadLetter.Route of a Broadcast needs DeadLetter.Topic: it has no dead letters of its own to fall back to")
	}
	if s.DeadLetter.Topic != "" {
		if err := checkTopic(s.DeadLetter.Topic); err != nil {
			return fmt.Errorf("DeadLetter.Topic: %w", err)
		}
	}
	if err := s.Retry.check("Retry"); err != nil {
		return err
	}
	for i, r := range s.Rules {
		if r.When == nil {
			return fmt.Errorf("Rules[%d].When is nil", i)
		}
		if err := r.Retry.check(fmt.Sprintf("Rules[%d].Retry", i)); err != nil {
			return err
		}
	}
	return nil
}

// minAckWait is the shortest lease: renewing is due after a third of it, and no broker's clock is finer than that.
const minAckWait = 100 * time.Millisecond

// ordered says whether messages of one key (or all) must not overtake each other, so that retries are held.
func (o Order) ordered() bool { return o == OrderByKey || o == OrderPerMember || o == OrderStrict }

// Exclusive says whether a lane of the group has one active member at a time, for adapters.
func (o Order) Exclusive() bool { return o == OrderByKey || o == OrderByKeyLoose || o == OrderStrict }

// String is the order in words, as in "by key".
func (o Order) String() string {
	return enumText(o, "by key", "by key per member", "by key, loosely", "none", "strict")
}
