package pubsub

import (
	"fmt"
	"strings"
	"time"
)

// Capabilities is what one open broker can do, read from the connected server.
//
// Where Tiers is set, messages that fail without an order to keep are copied to the tiers of their group, and acked once the copy is stored. Of
// Subscription.MaxInFlight each of the 7 tiers has a 32nd, at least one message, those that come from the tiers have a quarter, and the topic has
// the rest, at least Concurrency. A message that
// comes from a tier may be handled by another member than the later messages of its key, and beside them.
type Capabilities struct {
	Durability     Durability    // what a nil from Publish covers
	OptedDown      bool          // the user has asked by name (mem://, ?durability=memory) for less than Process
	History        bool          // kept without groups: FromEarliest, FromTime, FromPosition, Seek
	Redelivery     bool          // what was not settled comes back after a crash
	Order          OrderDomain   // where OrderByKey holds without an exclusive group
	Exclusive      bool          // a group can have one active member at a time
	LeaseMax       time.Duration // longest unsettled run; Forever
	Deliveries     bool          // Delivery.Deliveries is known
	StoresAttempts Stores        // whose recorded failures survive a crash
	FreeRelease    bool          // a hand-back raises no count at the broker
	RetryIn        time.Duration // longest delay that the broker itself can give a group's message; 0 = none
	Tiers          bool          // longer ones wait in the group's tiers, which the engine moves them through, see Tiers
	RetryLate      time.Duration // how late a moved retry may come, beyond load; with Tiers at least 2 s
	Schedule       bool          // Message.Delay
	Priority       bool          // Message.Priority
	Patterns       bool          // wildcards in Subscription.Topic
	Partitions     bool          // TopicSpec.Partitions above 1
	Dedup          time.Duration // window in which a Message.ID sent twice is stored once, when asked for
	MaxMessage     int64         // bytes that users may publish, headers included, see Message.Size; 0 = no limit known; for adapters: see Headroom
	Lag            LagKind       // exact, partial, unknown
	Waiting        WaitingKind   // retries that wait at the broker: managed, listed, none
}

// Headroom is by how many bytes a copy that the engine moves (a dead letter, a message for the quarantine) may be larger than
// Capabilities.MaxMessage, because of the headers that say what happened: so each message that could be published can also be given up. An
// adapter whose server has a limit declares a MaxMessage that lies at least Headroom below it, less whatever it stores besides what
// Message.Size counts, and lets copies through to the server, whose limit then counts.
const Headroom = 16 << 10

// Durability is what a nil from Publish covers. Each includes those before it.
type Durability uint8

const (
	None       Durability = iota // nothing
	Memory                       // while the broker's process lives
	Process                      // a SIGKILL of the broker
	Disk                         // a power loss
	Replicated                   // the loss of a machine
)

// String is the name that URLs and configuration files have: "none" to "replicated".
func (d Durability) String() string {
	return enumText(d, "none", "memory", "process", "disk", "replicated")
}

// OrderDomain is where the messages of a key stay in order while several members run.
type OrderDomain uint8

const (
	OrderInMember OrderDomain = iota // among the messages that one member gets; in the group only where it is exclusive
	OrderInGroup                     // in the whole group
)

// String is "member" or "group".
func (o OrderDomain) String() string { return enumText(o, "member", "group") }

// LagKind says how much a Lag knows.
type LagKind uint8

const (
	LagUnknown LagKind = iota // nothing
	LagPartial                // what is ready, not what is delivered and unsettled
	LagExact                  // everything that is not settled
)

// String is "unknown", "partial" or "exact".
func (l LagKind) String() string { return enumText(l, "unknown", "partial", "exact") }

// WaitingKind says what can be done with a group's retries while they wait at the broker.
type WaitingKind uint8

const (
	WaitingNone    WaitingKind = iota // nothing
	WaitingListed                     // they can be listed, all of them: Broker.Waiting
	WaitingManaged                    // and made due at once, or given up: Broker.RetryNow, Broker.DeadLetterNow
)

// String is "none", "listed" or "managed".
func (w WaitingKind) String() string { return enumText(w, "none", "listed", "managed") }

// Stores says whose recorded failures the broker keeps.
type Stores uint8

const (
	StoresNone Stores = iota // of none; a retry's copy carries its own
	StoresHead               // of the first unsettled message of a lane
	StoresAll                // of every message
)

// String is "none", "head" or "all".
func (s Stores) String() string { return enumText(s, "none", "head", "all") }

func enumText[E ~uint8](v E, names ...string) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("%T(%d)", v, uint8(v))
}

// lacks names what want asks for and c does not have, "" if nothing.
func (c Capabilities) lacks(want Capabilities) string {
	var miss []string
	need := func(missing bool, format string, args ...any) {
		if missing {
			miss = append(miss, fmt.Sprintf(format, args...))
		}
	}
	longer := func(name string, have, want time.Duration) {
		need(have < want, "%s of %v", name, want)
	}
	flag := func(name string, have, want bool) { need(want && !have, "%s", name) }

	need(c.Durability < want.Durability, "%v durability", want.Durability)
	flag("opted-down durability", c.OptedDown, want.OptedDown)
	flag("history", c.History, want.History)
	flag("redelivery", c.Redelivery, want.Redelivery)
	need(c.Order < want.Order, "order in the %v", want.Order)
	flag("exclusive groups", c.Exclusive, want.Exclusive)
	longer("leases", c.LeaseMax, want.LeaseMax)
	flag("delivery counts", c.Deliveries, want.Deliveries)
	need(c.StoresAttempts < want.StoresAttempts, "stored attempts (%v)", want.StoresAttempts)
	flag("free hand-backs", c.FreeRelease, want.FreeRelease)
	longer("native retry delays", c.RetryIn, want.RetryIn)
	flag("retry tiers", c.Tiers, want.Tiers)
	need(want.RetryLate > 0 && c.RetryLate > want.RetryLate, "retries at most %v late", want.RetryLate)
	flag("schedule", c.Schedule, want.Schedule)
	flag("priority", c.Priority, want.Priority)
	flag("patterns", c.Patterns, want.Patterns)
	flag("partitions", c.Partitions, want.Partitions)
	longer("deduplication", c.Dedup, want.Dedup)
	need(want.MaxMessage > 0 && c.MaxMessage > 0 && c.MaxMessage < want.MaxMessage, "messages of %d bytes", want.MaxMessage)
	need(c.Lag < want.Lag, "%v lag", want.Lag)
	need(c.Waiting < want.Waiting, "waiting retries that are %v", want.Waiting)
	return strings.Join(miss, ", ")
}
