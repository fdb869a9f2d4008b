package conformance

import (
	"context"
	"net/url"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A Harness connects the suite to one broker. Only Driver, or Fresh, is required. What a Harness cannot do leaves the properties that need it
// not run, and the report says so. Its functions are called by one property at a time; within it Driver may be called by several
// goroutines at once. An error of Kill, Start or DeleteTopic ends the property without a verdict on the adapter ("setup: ...").
type Harness struct {
	// Driver opens a new connection to the broker. Each call stands for another process of a service, so nothing may be shared between
	// two of them but the broker. The suite wraps what it gets, to break it, and closes it. ctx bounds the opening only. The
	// driver is to have the settings that its users get.
	Driver func(ctx context.Context) (pubsub.Driver, error)

	// Kill ends the broker's process as SIGKILL does, and returns once it is gone; Start brings it back at the same address with what
	// it had stored, and returns once it answers. Both or none. They ask what a crash of the broker loses, and whether
	// everybody goes on by themselves afterwards. A broker of its own is needed: others would be killed too.
	Kill  func(ctx context.Context) error
	Start func(ctx context.Context) error

	// DeleteTopic removes a topic with its groups behind the back of who uses them, as an operator does. It asks whether an adapter
	// notices, and makes nothing again that somebody has removed.
	DeleteTopic func(ctx context.Context, topic string) error

	// OpenURL opens the broker by its URL, as a service does, with those parameters added to it.
	OpenURL func(ctx context.Context, parameters url.Values) (*pubsub.Broker, error)

	// Fresh returns the Harness of an empty broker, for one property alone: of what it returns Driver, Kill, Start, DeleteTopic and OpenURL count.
	// Only a broker that starts within milliseconds can afford it. Nil: all properties share this one; topics and groups have names
	// that no other run uses, and are left behind.
	Fresh func() Harness

	// Wrap runs one property by calling f once, for instance in a bubble of testing/synctest, where time costs nothing. t is
	// the property's subtest, of the type that Run was called with; nil if Check was. A Wrap that skips, fails or does not call f
	// fails the property. A nil Wrap just calls f.
	Wrap func(t T, f func())

	// KnownFailing names properties that are known to fail, each with the reason: an issue, or what the broker does. One of them that
	// passes fails the run, so that the list cannot outlive its reasons. A name that is no property is refused.
	KnownFailing map[string]string

	Variant       string // of the broker: "quorum", "cluster"; "" = "default". Reports are kept apart by it.
	ServerVersion string // for the report
	ClientVersion string // for the report: of the client library below the adapter
}

func (h Harness) wrap(t T, f func()) {
	if h.Wrap == nil {
		f()
		return
	}
	h.Wrap(t, f)
}
