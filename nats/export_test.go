package nats

import (
	"context"

	"github.com/omnibus-go/omnibus/pubsub"
)

// What the tests of the wire format and of the names look into.
var (
	Encode      = encode
	Decode      = decode
	Overlap     = overlap
	Covers      = covers
	LaneSubject = laneSubject
	TopicOf     = topicOf
	Again       = again[int]
)

// PrivateSubject is where a place of our own is in the stream NAME.
func PrivateSubject(stream string, p pubsub.Place, lane string) string {
	return names{stream}.subject(p, lane)
}

// Durable is the name of a group's consumer.
func Durable(p pubsub.Place, lane int32) string { return durable(p, lane) }

// Unanswered is a producer without a connection: send adds to what waits for an answer, with numbers from 1, and complain tells it what a server says.
func Unanswered(report func([]pubsub.Result)) (send func(subject string), complain func(error)) {
	p := &producer{report: report, pending: map[uint64]flown{}}
	return func(subject string) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.newest++
		p.pending[p.newest] = flown{subject: subject}
	}, p.complain
}

// HasAcked tells a driver that its session before has acked messages of a group, by sequence: when they were stored.
func HasAcked(ctx context.Context, d pubsub.Driver, topic, group string, stored map[uint64]uint64) error {
	own := d.(*driver)
	all, err := own.consumersOf(ctx, topic, group)
	if err != nil {
		return err
	}
	own.owe(nil, map[consumerName]map[uint64]uint64{{stream: own.names.stream, name: all[0].Name, made: all[0].Created}: stored})
	return nil
}

// WhileTopicsRest calls f while no adapter changes the topics of the driver's stream.
func WhileTopicsRest(ctx context.Context, d pubsub.Driver, f func() error) error {
	own := d.(*driver)
	ends, err := own.lock(ctx)
	if err != nil {
		return err
	}
	defer own.unlock(ctx, ends)
	return f()
}

// Remembered is of how many consumers a driver remembers what a session before has acked, and forgets it.
func Remembered(d pubsub.Driver) int {
	own := d.(*driver)
	own.mu.Lock()
	defer own.mu.Unlock()
	n := len(own.done)
	clear(own.done)
	return n
}
