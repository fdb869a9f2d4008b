package conformance

import (
	"context"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A Harness connects the suite to one broker. Only Driver is required. What a Harness cannot do leaves the properties that need it
// not run, and the report says so.
type Harness struct {
	// Driver opens a new connection to the broker. Each call stands for another process; the suite wraps what it gets, to
	// break it, and closes it.
	Driver func(ctx context.Context) (pubsub.Driver, error)

	// Kill ends the broker's process as SIGKILL does; Start brings it back with what it had stored, and returns once it
	// answers. Both or none.
	Kill  func(ctx context.Context) error
	Start func(ctx context.Context) error

	// DeleteTopic removes a topic and its groups behind the back of who uses them, as an operator does.
	DeleteTopic func(ctx context.Context, topic string) error

	// Fresh returns the Harness of an empty broker, for one property alone. Without it all share this one: topics and groups have
	// names that no other run uses.
	Fresh func() Harness

	// Wrap runs one property by calling f once, for instance in a bubble of testing/synctest. t is the property's subtest, of the type
	// that Run was called with; nil if Check was. A nil Wrap just calls f.
	Wrap func(t T, f func())

	// KnownFailing names properties that are known to fail, each with the reason. One of them that passes fails the run.
	KnownFailing map[string]string

	Variant       string // of the broker, for the report: "quorum", "cluster"; "" = "default"
	ServerVersion string // for the report
	ClientVersion string // for the report
}

func (h Harness) wrap(t T, f func()) {
	if h.Wrap == nil {
		f()
		return
	}
	h.Wrap(t, f)
}
