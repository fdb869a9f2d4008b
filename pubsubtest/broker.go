package pubsubtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A Broker is a [pubsub.Broker] on an empty server of package memory, of which a test can ask what has happened. It is a
// pubsub.Publisher and a pubsub.Subscriber; what wants a *pubsub.Broker, and DeadLetter.To, gets its field. Its methods fail the test where they cannot
// do what they say. They may be called concurrently, but only from goroutines that may call t.FailNow.
type Broker struct {
	*pubsub.Broker

	t      testing.TB
	look   connection // of its own, which outlives Close
	track  *tracker
	faults *faults
}

// Open opens a Broker for the rest of the test. The topics exist from the start; others are made by Ensure and Subscribe, and as in
// production publishing to one that nobody made is pubsub.ErrUnroutable. A nil opts is the zero value.
//
// When the test ends the Broker is closed. The test fails if that does not go cleanly (a handler that ignores its context, a
// PublishAsync that failed and that nobody was told of), and if a goroutine is left one second later that was started by the
// test's own goroutine since Open, by a handler, or by one of those in turn: a service that was not stopped, a handler's own. What is to outlive the
// test, a connection pool for instance, is to be opened before; idle connections of net/http and database/sql do not count, nor do other Brokers.
func Open(tb testing.TB, opts *pubsub.Options, topics ...string) *Broker {
	tb.Helper()
	server := memory.NewServer(memory.Config{})
	b := &Broker{t: tb, look: connect(server), track: newTracker(),
		faults: &faults{seen: map[*pubsub.Message]struct{}{}, unheard: map[*pubsub.Message]struct{}{}}}
	guard := watchGoroutines(tb)
	all := pubsub.Options{}
	if opts != nil {
		all = *opts
	}
	all.Use = append([]pubsub.Middleware{b.track.layer(guard)}, all.Use...)
	var err error
	b.Broker, err = pubsub.New(context.Background(), &driver{connection: connect(server), track: b.track, faults: b.faults}, &all)
	if err != nil {
		tb.Fatalf("pubsubtest.Open: %v", err)
	}
	tb.Cleanup(func() {
		if err := b.Close(); err != nil {
			tb.Errorf("closing the broker: %v", err)
		}
		guard.check(tb)
	})
	var topology pubsub.Topology
	for _, topic := range topics {
		topology.Topics = append(topology.Topics, pubsub.TopicSpec{Name: topic})
	}
	operator, err := server.Open(context.Background(), nil) // whatever Options.Manage allows the Broker
	if err == nil {
		err = errors.Join(operator.Ensure(context.Background(), topology), operator.Close())
	}
	if err != nil {
		tb.Fatalf("pubsubtest.Open: %v", err)
	}
	return b
}

// Published returns what is stored in a topic, as it is on the wire: after the Outgoing halves of the middleware. It is in order of
// publishing, in a topic with several partitions one partition after the other. It works after Close, too.
func (b *Broker) Published(topic string) []pubsub.Message {
	b.t.Helper()
	return b.browse(pubsub.Place{Topic: topic})
}

// DeadLetters returns the dead letters that a group keeps, oldest first: the messages as they came, with headers "omnibus-dlq-reason",
// "omnibus-dlq-category", "omnibus-dlq-error" and more. Those that a DeadLetter.Topic or Route sends elsewhere are Published there.
func (b *Broker) DeadLetters(topic, group string) []pubsub.Message {
	b.t.Helper()
	return b.browse(pubsub.Place{Topic: topic, Group: group, Kind: pubsub.PlaceDead})
}

func (b *Broker) browse(p pubsub.Place) (all []pubsub.Message) {
	b.t.Helper()
	for r, err := range b.look.Browse(context.Background(), p, pubsub.Position{}) {
		if err != nil {
			b.t.Fatalf("reading topic %q: %v", p.Topic, err)
		}
		all = append(all, r.Msg.Clone())
	}
	return all
}

// FailPublish lets the n-th message from now (1 = the next one) that is published to any topic fail with code. Those of Deliver
// count, retries and dead letters do not. It may be called again before that message comes: each call plans one failure.
//
//   - ErrUnconfirmed: the message is stored, and nobody says so. The caller is told after PublisherOptions.Timeout, 30 seconds of
//     virtual time; outside of a bubble they are real.
//   - ErrUnavailable: the broker refuses it once and takes it when it is sent again, which the engine does by itself.
//   - any other: the broker refuses it for good, and the caller is told at once.
func (b *Broker) FailPublish(n int, code pubsub.Code) {
	b.t.Helper()
	if n < 1 || code == 0 || code > pubsub.ErrClosed {
		b.t.Fatalf("FailPublish(%d, %d): n counts from 1, and code is one of the codes of package pubsub", n, code)
	}
	b.faults.plan(n, code)
}

// WaitIdle waits until every message is settled in every group that has a subscription on this Broker: acked, dead-lettered or expired, with all
// retries and delays, and what handlers have published in turn. What is done by a handler is seen by the test after it. A Broadcast
// is not waited for. The test fails if 30 days are over (outside of a bubble 30 seconds), and is told who is behind.
func (b *Broker) WaitIdle() {
	b.t.Helper()
	limit := patience()
	over := time.NewTimer(limit)
	defer over.Stop()
	rounds := 0
	for {
		changed := b.track.changed()
		behind := b.behind()
		if len(behind) > 0 {
			select {
			case <-changed:
				continue
			case <-over.C:
				b.t.Fatalf("still not idle after %v:\n  %s", limit, strings.Join(behind, "\n  "))
			}
		}
		// what a handler has handed to PublishAsync may be on its way
		quiet := time.NewTimer(quietFor)
		select {
		case <-changed:
			quiet.Stop()
		case <-quiet.C:
			return
		}
		if rounds++; rounds > maxRounds {
			b.t.Fatalf("still not idle: messages keep coming, less than %v apart", quietFor)
		}
	}
}

// quietFor is how long nothing is to happen before a Broker counts as idle.
const quietFor = 100 * time.Millisecond

// maxRounds is how often WaitIdle finds nothing to settle and then something new.
const maxRounds = 10_000

// behind says which groups have messages to settle.
func (b *Broker) behind() (who []string) {
	ctx := context.Background()
	for _, p := range b.track.subscribed() {
		lag, err := b.look.Lag(ctx, p.Topic, p.Group)
		if err != nil {
			who = append(who, fmt.Sprintf("group %q of %q: %v", p.Group, p.Topic, err))
		} else if lag.Messages > 0 {
			who = append(who, fmt.Sprintf("group %q of %q has %d to settle", p.Group, p.Topic, lag.Messages))
		}
	}
	slices.Sort(who)
	return who
}

// patience is how long a wait may take. The clock of a bubble begins with the year 2000, and a month of it takes a second or so: what
// renews leases is what costs it.
func patience() time.Duration {
	if time.Now().Year() < 2020 {
		return 30 * 24 * time.Hour
	}
	return 30 * time.Second
}
