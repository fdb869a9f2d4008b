package conformance

import (
	"context"
	"net/url"
	"time"

	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A Harness connects the suite to one broker. Only Driver, or Fresh, is required. What a Harness cannot do leaves the properties that need it
// not run, and the report says so. Unless there is a Wrap, properties that mostly wait run beside others, up to five at once: Driver and
// Fresh may be called by several goroutines at once, each of the others by one at a time. While Kill, Start, Faults and Replicas are used no other
// property runs. An error of Kill, Start or DeleteTopic ends the property without a verdict on the adapter ("setup: ...").
type Harness struct {
	// Driver opens a new connection to the broker. Each call stands for another process of a service, so nothing may be shared between
	// two of them but the broker. The suite wraps what it gets, to break it, and closes it. ctx bounds the opening only. The
	// driver is to have the settings that its users get.
	Driver func(ctx context.Context) (pubsub.Driver, error)

	// Kill ends the broker's process as SIGKILL does, and returns once it is gone; Start brings it back at the same address with what
	// it had stored, and returns once it answers. Both or none. They ask what a crash of the broker loses, and whether
	// everybody goes on by themselves afterwards. A broker of its own is needed: others would be killed too.
	Kill  func(ctx context.Context) error
	Start func(ctx context.Context) error // see Kill

	// Faults are what else can be done to the broker. Soak and Faults/Schedules use them, and Faults/HalfOpen the one that is named HalfOpen; a
	// broker of its own is needed.
	Faults []Fault

	// Replicas finds the nodes that keep a topic, where several do, and returns two faults: one freezes all of them but the leader, the other ends the
	// leader's process and removes for good what it has stored.
	Replicas func(ctx context.Context, topic string) (pauseFollowers, wipeLeader Fault, err error)

	// Recovery is how long the broker, and its members, take to serve again after Start and after the worst of Faults, on a slow machine; 0 =
	// 2 s. A fault waits so long, and for some leases to end, until it has something to hit. The longer it takes the fewer faults has a schedule of
	// Soak, which is to end after some 20 s.
	Recovery time.Duration

	// Address is how another process finds this broker: its URL. Where it is given, the consumers that Soak kills are processes of their
	// own: this program, started again, which has to call Member first of all.
	Address string

	// DeleteTopic removes a topic with its groups behind the back of who uses them, as an operator does, and leaves others alone, which are made and used
	// meanwhile. It asks whether an adapter notices, and makes nothing again that somebody has removed.
	DeleteTopic func(ctx context.Context, topic string) error

	// ForeignPublish lets another client write a message as users of the broker without this adapter would: with the payload and the headers of
	// m, as far as the broker's protocol can say these, and nothing of the adapter's format. It returns the headers that it has said.
	ForeignPublish func(ctx context.Context, topic string, m pubsub.Message) (said pubsub.Headers, err error)

	// Intruders are for brokers that ask who connects, or that show who they are: each opens the broker as a service does, with those options, but
	// as somebody who must not get in. What this broker does not ask for is left out. Driver has the right credentials.
	Intruders map[Intruder]func(ctx context.Context, opts *pubsub.Options) (*pubsub.Broker, error)

	// Secrets are texts that nobody may read: the passwords and tokens of Driver, of OpenURL and of Intruders.
	Secrets []string

	// OpenURL opens the broker by its URL, as a service does, with those parameters added to it.
	OpenURL func(ctx context.Context, parameters url.Values) (*pubsub.Broker, error)

	// Fresh returns the Harness of an empty broker, for one property alone: of what it returns Driver, Kill, Start, Faults, Replicas, Recovery,
	// Address, DeleteTopic, ForeignPublish, Intruders, Secrets, OpenURL and KMS count.
	// Only a broker that starts within milliseconds can afford it. Nil: all properties share this one; topics and groups have names
	// that no other run uses, and are left behind.
	Fresh func() Harness

	// KMS wraps data keys in the properties of what is encrypted, called once for each; nil = that of a security.Keyring. It asks whether somebody's own KMS
	// keeps what these promise.
	KMS func() (security.KMS, error)

	// Wrap runs one property by calling f once, for instance in a bubble of testing/synctest, where time costs nothing. t is
	// the property's subtest, of the type that Run was called with; nil if Check was. A Wrap that skips, fails or does not call f
	// fails the property. Properties run one after another then. A nil Wrap just calls f.
	Wrap func(t T, f func())

	// Select picks the properties that are asked; nil = all. The report of a part is not worth keeping.
	Select func(Property) bool

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
