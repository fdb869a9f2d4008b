package conformance

import (
	"slices"
	"strings"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A Property is one thing that every adapter promises.
type Property struct {
	Name     string // Group/Property
	Doc      string // what holds, in one sentence
	Promises []int  // those of DESIGN.md that it belongs to
	Gate     Gate   // what the broker must be able to do; the zero value: nothing
	Pending  string // why no broker can be asked yet: every report says so, as the reason of not-run; "" = it is asked

	run     func(e *env)
	refused func(e *env)         // of a gate that is closed: asserts that asking for the feature is refused; nil = nobody can ask
	needs   func(Harness) string // what the harness cannot do, "" = nothing
	waits   time.Duration        // about so long does it mostly wait, on the slowest broker: then it runs beside others; 0 = it works
	alone   bool                 // it breaks the broker for everybody, or looks at the whole process: nothing runs meanwhile
}

// Group is the part of the name before the slash.
func (p Property) Group() string {
	g, _, _ := strings.Cut(p.Name, "/")
	return g
}

// A Gate is the capability that a property is about.
type Gate struct {
	Text string // as the report shows it: fields of pubsub.Capabilities
	open func(pubsub.Capabilities) bool
}

// Open says whether a broker with these capabilities has to keep the promise.
func (g Gate) Open(c pubsub.Capabilities) bool { return g.open == nil || g.open(c) }

// and joins two gates.
func (g Gate) and(o Gate) Gate {
	return Gate{g.Text + ", " + o.Text, func(c pubsub.Capabilities) bool { return g.Open(c) && o.Open(c) }}
}

func caps(text string, open func(pubsub.Capabilities) bool) Gate { return Gate{text, open} }

// The gates, as functions: a package has no variables.
func keepsAnything() Gate {
	return caps("Durability > none", func(c pubsub.Capabilities) bool { return c.Durability > pubsub.None })
}

func survives() Gate {
	return caps("Durability >= process", func(c pubsub.Capabilities) bool { return c.Durability >= pubsub.Process })
}

func redelivers() Gate {
	return caps("Redelivery", func(c pubsub.Capabilities) bool { return c.Redelivery })
}

func replicated() Gate {
	return caps("Durability = replicated", func(c pubsub.Capabilities) bool { return c.Durability == pubsub.Replicated })
}

func leases() Gate {
	return caps("LeaseMax > 0", func(c pubsub.Capabilities) bool { return c.LeaseMax > 0 })
}

func storesAttempts() Gate {
	return caps("StoresAttempts", func(c pubsub.Capabilities) bool { return c.StoresAttempts > pubsub.StoresNone })
}

func countsDeliveries() Gate {
	return caps("Deliveries", func(c pubsub.Capabilities) bool { return c.Deliveries })
}

func remembers() Gate {
	return caps("StoresAttempts = all, or Deliveries", func(c pubsub.Capabilities) bool { return c.StoresAttempts == pubsub.StoresAll || c.Deliveries })
}

func movesRetries() Gate {
	return caps("RetryIn or Tiers", func(c pubsub.Capabilities) bool { return c.RetryIn > 0 || c.Tiers })
}

func keepsHistory() Gate {
	return caps("History", func(c pubsub.Capabilities) bool { return c.History })
}

func exclusive() Gate {
	return caps("Order = group, or Exclusive", func(c pubsub.Capabilities) bool { return c.Order == pubsub.OrderInGroup || c.Exclusive })
}

func partitioned() Gate {
	return caps("Partitions", func(c pubsub.Capabilities) bool { return c.Partitions })
}

// partitionwise holds where a member of a group has whole partitions: a log, in which nothing is counted or settled message by message.
func partitionwise() Gate {
	return caps("Partitions, Order = group and no Deliveries", func(c pubsub.Capabilities) bool {
		return c.Partitions && c.Order == pubsub.OrderInGroup && !c.Deliveries
	})
}

func patterned() Gate {
	return caps("Patterns", func(c pubsub.Capabilities) bool { return c.Patterns })
}

func schedules() Gate {
	return caps("Schedule", func(c pubsub.Capabilities) bool { return c.Schedule })
}

func prioritizes() Gate {
	return caps("Priority", func(c pubsub.Capabilities) bool { return c.Priority })
}

func limited() Gate {
	return caps("MaxMessage > 0", func(c pubsub.Capabilities) bool { return c.MaxMessage > 0 })
}

func lagged() Gate {
	return caps("Lag", func(c pubsub.Capabilities) bool { return c.Lag != pubsub.LagUnknown })
}

func deduplicates() Gate {
	return caps("Dedup", func(c pubsub.Capabilities) bool { return c.Dedup > 0 })
}

// Properties returns the suite, group by group: the order of a report. Run and Check may begin another one earlier, and several at once; see Harness.
func Properties() []Property {
	var all []Property
	for _, group := range [][]Property{
		delivery(), settlement(), order(), groups(), flow(), fidelity(), lifecycle(), faults(), retry(),
		slices.Concat(deadLetters(), outcomes(), blockedKeys()), waitingRetries(), timing(), replay(), observation(),
		secured(),
	} {
		all = append(append(all, group...), pending(group[0].Group())...)
	}
	return all
}
