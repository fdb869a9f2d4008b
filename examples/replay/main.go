// Command replay reads what was published long ago, on brokers that keep it: a new group begins where it wants (at the beginning, at a
// time, at a position), and one that has read all of it is sent back.
//
//	go run ./examples/replay
//	BROKER_URL=nats://127.0.0.1:4222 go run ./examples/replay
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/pubsub"
)

func main() {
	if err := run(context.Background(), cmp.Or(os.Getenv("BROKER_URL"), "mem://")); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, url string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	// On a broker without history Open fails, and says why.
	b, err := brokers.Open(ctx, url, &pubsub.Options{Require: pubsub.Capabilities{History: true}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()

	topic := fmt.Sprintf("events-%d", time.Now().UnixNano()) // of this run alone: its history begins empty
	if err := b.Ensure(ctx, pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: topic}}}); err != nil {
		return err
	}
	// Nobody listens yet.
	if err := publish(ctx, b, topic, "mon", "tue", "wed"); err != nil {
		return err
	}
	noon, err := between(ctx)
	if err != nil {
		return err
	}
	if err := publish(ctx, b, topic, "thu", "fri", "sat"); err != nil {
		return err
	}
	friday, err := find(ctx, b, topic, "fri")
	if err != nil {
		return err
	}

	for _, s := range []struct {
		group string
		start pubsub.Start
		n     int
	}{
		{"everything", pubsub.FromEarliest(), 6},
		{"since-noon", pubsub.FromTime(noon), 3},
		{"since-friday", pubsub.FromPosition(friday), 2},
	} {
		days, err := read(ctx, b, pubsub.Subscription{Topic: topic, Group: s.group, Start: s.start}, s.n)
		if err != nil {
			return err
		}
		fmt.Printf("%s: %s\n", s.group, days)
	}

	// A Start counts for a group that is new: this one goes on where it was, after everything, until it is moved.
	if err := b.Seek(ctx, topic, "everything", pubsub.FromPosition(friday)); err != nil {
		return err
	}
	days, err := read(ctx, b, pubsub.Subscription{Topic: topic, Group: "everything", Start: pubsub.FromEarliest()}, 2)
	if err != nil {
		return err
	}
	fmt.Printf("everything, sent back to friday: %s\n", days)
	return nil
}

func publish(ctx context.Context, b *pubsub.Broker, topic string, days ...string) error {
	for _, day := range days {
		if err := b.Publish(ctx, topic, pubsub.Message{ID: day, Payload: []byte(day)}); err != nil {
			return err
		}
	}
	return nil
}

// between returns a time that is later than what was published, and earlier than what is going to be, also on a clock that counts
// milliseconds.
func between(ctx context.Context) (time.Time, error) {
	var at time.Time
	for range 2 {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return at, ctx.Err()
		}
		if at.IsZero() {
			at = time.Now()
		}
	}
	return at, nil
}

// find looks through the topic, as nobody's member: nothing is taken away.
func find(ctx context.Context, b *pubsub.Broker, topic, id string) (pubsub.Position, error) {
	for rec, err := range b.Browse(ctx, pubsub.Place{Topic: topic, Kind: pubsub.PlaceMain}, pubsub.Position{}) {
		if err != nil {
			return pubsub.Position{}, err
		}
		if rec.Msg.ID == id {
			return rec.Pos, nil
		}
	}
	return pubsub.Position{}, fmt.Errorf("there is no %q in %s", id, topic)
}

// read takes n messages as a member of a group.
func read(ctx context.Context, b *pubsub.Broker, sub pubsub.Subscription, n int) (string, error) {
	leases, err := b.Receive(ctx, sub)
	if err != nil {
		return "", err
	}
	var all []string
	for lease, err := range leases {
		if err != nil {
			return "", err
		}
		all = append(all, string(lease.Payload))
		if err := lease.Settle(ctx, nil); err != nil {
			return "", err
		}
		if len(all) == n {
			break // the group stays where it is
		}
	}
	return strings.Join(all, " "), ctx.Err()
}
