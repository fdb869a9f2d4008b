package pubsub

import (
	"context"
	"encoding/hex"
	"iter"
	"time"
)

// A Driver is what an adapter implements: small, batched, raw errors. It never retries, logs, wraps errors or decides;
// the engine in this package does all of that, once, for every broker. A Driver is safe for concurrent use.
type Driver interface {
	// Name is the adapter's, as it stands in errors: "kafka", "memory".
	Name() string

	// Capabilities are those of the server that the driver is connected to. They do not change while it is open. MaxMessage lies
	// Headroom below what the server takes.
	Capabilities() Capabilities

	// Classify names the code of a native error. final says that trying again cannot help: the engine then neither
	// reopens a session nor sends a message again. It never sees nil or a context's error.
	Classify(err error) (code Code, final bool)

	// Ensure makes (Create) or checks (Verify) the topics and groups of t, with whatever places of ours a group needs.
	// A group begins at its Start the moment Ensure made it. What exists with other settings is an ErrConflict,
	// what Verify does not find an ErrNotFound. It is never called with Off.
	Ensure(ctx context.Context, t Topology, m Manage) error

	// OpenProducer opens a session for sending. report is told the fates, from any goroutine, also from within Send;
	// it does not keep the slice.
	OpenProducer(ctx context.Context, s ProducerSpec, report func([]Result)) (Producer, error)

	// OpenSource opens a session for receiving. It returns once the group and its start are stored at the broker, so
	// that what is published from then on will be received.
	OpenSource(ctx context.Context, s SourceSpec) (Source, error)

	// Ping returns nil when the server has answered.
	Ping(ctx context.Context) error

	// As stores the native client in target, a non-nil pointer to a type that the adapter documents.
	As(target any) bool

	// Close releases everything. Sessions that are still open die.
	Close(ctx context.Context) error
}

// A Browser reads a place without taking anything away: dead letters, what became of them, waiting retries, and with History topics.
type Browser interface {
	// Browse yields what lies in p from position from on (zero = the beginning), oldest first, and ends at its end.
	Browse(ctx context.Context, p Place, from Position) iter.Seq2[Record, error]
}

// A Lagger tells how far a group is behind. Needed where Capabilities.Lag is not LagUnknown.
type Lagger interface {
	// Lag counts what the group has not settled, whoever its members are. A group that does not exist is an ErrNotFound.
	Lag(ctx context.Context, topic, group string) (Lag, error)
}

// A Seeker moves a group that has no members; with members it is an ErrConflict. Needed where Capabilities.History is set.
type Seeker interface {
	// Seek returns when the group will go on at to, whoever its next member is.
	Seek(ctx context.Context, topic, group string, to Start) error
}

// A Lister knows which topics there are. A driver whose server tells no client leaves it out.
type Lister interface {
	// Topics names the topics that exist, in any order, each once or more often; the engine leaves out what can be no topic's name.
	Topics(ctx context.Context) ([]string, error)
}

// A Purger removes the oldest dead letters of a group for good: up to a position, that one included, in the order in which Browse shows them. What is at
// no such position is left alone, whoever adds to the place meanwhile. A driver whose server cannot do that leaves it out.
type Purger interface {
	// Purge is called with a PlaceDead and a position that is not zero; one that no dead letter of the group can have is an ErrInvalid.
	Purge(ctx context.Context, p Place, upTo Position) error
}

// A Waiter shows the retries of a group that wait at the broker. Needed where Capabilities.Waiting is not WaitingNone.
type Waiter interface {
	// Waiting yields all retries of a group whose time has not come. Those in the tiers of Capabilities.Tiers it yields as they lie there, without Due, and
	// perhaps twice while they are moved on. A group that does not exist is an ErrNotFound.
	Waiting(ctx context.Context, topic, group string) iter.Seq2[Waiting, error]
}

// A Rescheduler changes what a Waiter has shown. Needed where Capabilities.Waiting is WaitingManaged. It does so wholly or not at all, and only while w waits as
// it was shown: whoever gets the message, or changes when it is due, meanwhile wins, and the other one is told ErrNotFound.
type Rescheduler interface {
	// Reschedule lets w be due after so long from now, 0 = at once, and returns it as it waits then.
	Reschedule(ctx context.Context, topic, group string, w Waiting, in time.Duration) (Waiting, error)

	// Withdraw ends w: it is not delivered any more.
	Withdraw(ctx context.Context, topic, group string, w Waiting) error
}

// A Producer is one session: after an error of Send, or once it has reported FateUnknown, it is dead, and the engine
// closes it and opens the next one. Send is called by one goroutine at a time, Close once, after the last Send.
type Producer interface {
	// Send takes a run, to be stored in its order, and returns how many it took; the others were certainly not sent.
	// It may block while the broker does. The slice is the engine's again when it returns; what Out.Msg points to is never
	// changed or reused afterwards, so a driver may keep it. Every Out that was taken gets exactly one Result. A message that the server finds
	// too large is refused with an error that Classify calls a final ErrTooLarge: the engine then makes a dead letter smaller, and sends it again.
	Send(ctx context.Context, run []Out) (int, error)

	// Close waits for outstanding answers until ctx ends, then reports what has none as FateUnknown. After it has
	// returned nothing is reported.
	Close(ctx context.Context) error
}

// ProducerSpec says how a Producer confirms.
type ProducerSpec struct {
	Ack        Ack // the weakest answer that counts as accepted
	MaxPending int // the engine never has more unanswered
}

// A Source is one session of one subscription: after an error that is not the context's it is dead. A partition is a
// lane; a broker without partitions has one, lane 0, announced by LaneGained like any other. Recv is called by one goroutine at a time; the other
// methods may be called at the same time as it and as each other.
type Source interface {
	// Recv waits until there is a record, a lane event or an error, or ctx ends, and fills buf. Its events happened
	// before its records. It returns about maxBytes at the most, but always at least one record if there is one. Received and
	// unsettled records never exceed SourceSpec.MaxInFlight, or AllInFlight; of several lanes one alone should not take all of that. With an empty
	// buf it waits for events only. A ctx that ends leaves the session alive and loses nothing.
	Recv(ctx context.Context, buf []Record, maxBytes int64) (int, []LaneEvent, error)

	// Settle ends leases, in any order. errs, as long as s and all nil, takes what went wrong with single ones
	// (ErrLeaseLost); the error returned says that the session died and that none of s is known to be settled.
	Settle(ctx context.Context, s []Settlement, errs []error) error

	// Renew prolongs leases by SourceSpec.AckWait from now and records failures where the broker can. Where leases need no renewal
	// and failures cannot be kept it does nothing.
	Renew(ctx context.Context, r []Renewal, errs []error) error

	// Sync returns when the settlements before it would survive a crash of this process: a commit, a double ack.
	Sync(ctx context.Context) error

	// Quiesce stops the arrival of new records; received ones stay ours and can be settled. What the client had buffered goes back. Where nothing
	// can (no Redelivery), it returns when Recv has handed that out, or ctx ends.
	Quiesce(ctx context.Context) error

	// LaneDone answers that LaneLosing: the engine has settled what it will settle of the lane. What is not settled goes back. An answer to an
	// event whose lane was lost meanwhile comes too late and does nothing, also when the lane has come again.
	LaneDone(ctx context.Context, losing LaneEvent) error

	// Close ends the session. What is not settled goes back. No method is called after it.
	Close(ctx context.Context) error
}

// SourceSpec says what a Source reads.
type SourceSpec struct {
	From             Place         // PlaceMain as the group sees it, PlaceQuarantine, or a Tier of PlaceRetry
	Start            Start         // of a group that does not exist yet; one that does goes on where it is
	Order            Order         // what the driver keeps of it is Order.Exclusive
	AckWait          time.Duration // the length of a lease, from Recv or Renew on
	MaxInFlight      int           // the engine holds no more of this place
	MaxInFlightBytes int64         // the same in bytes, see Message.Size; one fetch may go beyond it
	Member           string        // unique per consumer

	// AllInFlight is for a driver whose settlements take a while to survive a crash. Those of all Sources of this Member that have it may together have
	// so many records that are unsettled, or settled and not yet safe: what one place does not need another has. 0 = this Source has MaxInFlight for that.
	AllInFlight int

	Manage Manage // whether what is missing is made
}

// A Place is where messages of a topic and group are. Only drivers know physical names.
type Place struct {
	Topic, Group string        // as services call them; of PlaceMain as a target only Topic counts
	Kind         PlaceKind     // which of their places
	Tier         time.Duration // of PlaceRetry: one of Tiers; 0 = what is sent to the group alone, which comes with its other messages
}

// PlaceKind tells the places of a topic and group apart. A driver refuses what it has no place for with an ErrUnsupported.
type PlaceKind uint8

const (
	PlaceMain       PlaceKind = iota // the topic; in a SourceSpec as one group sees it
	PlaceRetry                       // messages for one group only: retries and replays
	PlaceQuarantine                  // of a group: suspected of killing processes
	PlaceDead                        // of a group: given up
	PlaceState                       // of a group: what became of its dead letters, kept as long as these
)

// An Out is a message on its way to a place.
type Out struct {
	Seq   uint64   // names it in Result; rises within a session
	To    Place    // of PlaceMain only Topic counts
	Msg   *Message // immutable
	Dedup Dedup    // the same whenever this message is sent again to this place; never the bare Message.ID
	Again bool     // an earlier session may have sent it already
}

// Dedup is the token by which a broker recognises a message that is sent again. The zero value means none.
type Dedup [16]byte

// String is the token in 32 hexadecimal digits.
func (d Dedup) String() string { return hex.EncodeToString(d[:]) }

// A Result is the broker's answer to one Out.
type Result struct {
	Seq  uint64   // that of the Out
	Fate Fate     // what became of it
	Pos  Position // where it is stored, if the broker says so
	Err  error    // of FateRefused and FateUnknown: the native error
}

// Fate is what became of a message.
type Fate uint8

const (
	FateAccepted Fate = iota + 1 // stored at the durability that ProducerSpec.Ack asks for
	FateRefused                  // certainly not stored; of a final ErrUnconfirmed: not wholly, and it is not to be sent again
	FateUnknown                  // perhaps stored; the session is dead
)

// A LaneEvent says that a lane comes or goes.
type LaneEvent struct {
	Lane     int32      // its number, which means something to the driver only
	Gen      uint32     // tells one time that a lane is ours from the next, like Token.Gen
	Kind     LaneChange // what happens
	Deadline time.Time  // of LaneLosing: LaneDone by then
}

// LaneChange is what happens to a lane.
type LaneChange uint8

const (
	LaneGained LaneChange = iota + 1 // its records may come from now on
	LaneLosing                       // no more records; settle what runs, then call LaneDone
	LaneLost                         // its tokens are stale
)

// A Token names one record to its Source, and to no other. The engine reads Lane only, and gives the whole back as it came.
type Token struct {
	Lane int32  // that the record came from
	Gen  uint32 // tells one time that the lane is ours from the next
	A, B uint64 // the driver's: offset, delivery tag, entry id, stream sequence
	Ref  any    // the driver's; nil = it needs none
}

// A Record is a message as it comes from the broker, with what the broker knows about it.
type Record struct {
	Msg        *Message  // nobody changes it, also the driver from then on
	Topic      string    // the concrete one
	Pos        Position  // where it lies; zero = unknown
	Token      Token     // names it in Settlement and Renewal
	Deliveries int32     // this one included; 0 = unknown
	Failed     int32     // failures stored at the broker, where it can
	LeaseUntil time.Time // past it the engine says ErrLeaseLost; zero = no lease
	Bad        error     // the driver could not decode it; Msg has what there is, raw
}

// A Settlement ends the lease of one record.
type Settlement struct {
	Token  Token         // of the record
	As     SettleAs      // how
	Delay  time.Duration // of SettleRetryIn
	Failed int32         // of SettleRelease and SettleRetryIn: kept where the broker can
}

// SettleAs says how.
type SettleAs uint8

const (
	SettleAck     SettleAs = iota + 1 // done with: it does not come again
	SettleRelease                     // give it back; it is delivered again at once
	SettleRetryIn                     // deliver again after Delay, to this group; Delay is within Capabilities.RetryIn
)

// A Renewal prolongs the lease of one record.
type Renewal struct {
	Token  Token // of the record
	Failed int32 // its failures so far: kept where the broker can
}

// NewPosition makes a Position, for adapters. kind tells the adapters' positions apart; the zero value is no position. c is the partition: what lies further on
// in it has the larger a, or the same a and the larger b, both without a sign.
func NewPosition(kind uint8, a, b int64, c int32) Position { return Position{a, b, c, kind} }

// Parts returns what NewPosition was given.
func (p Position) Parts() (kind uint8, a, b int64, c int32) { return p.kind, p.a, p.b, p.c }

// StartKind tells the starts apart.
type StartKind uint8

const (
	StartNow      StartKind = iota // FromNow
	StartEarliest                  // FromEarliest
	StartTime                      // FromTime
	StartPosition                  // FromPosition
)

// Parts takes a Start apart, for adapters.
func (s Start) Parts() (StartKind, time.Time, Position) { return s.kind, s.time, s.pos }

// A RecordAser is a Source that can show the native message behind a token, for Delivery.As.
type RecordAser interface {
	// RecordAs stores the native message in target, as Driver.As does the client; false where it has none of that type, or t is not its own any more.
	RecordAs(t Token, target any) bool
}
