package redisstreams

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/pubsub"
)

// AddrOf finds the server that has a topic.
func AddrOf(ctx context.Context, d pubsub.Driver, topic string) (string, error) {
	return d.(*driver).addrOf(ctx, topic)
}

// Fields is a message as the fields of an entry.
func Fields(m *pubsub.Message) [][]byte {
	var all [][]byte
	for _, x := range encode(nil, m) {
		switch v := x.(type) {
		case *string:
			all = append(all, []byte(*v))
		case []byte:
			all = append(all, v)
		default:
			all = append(all, fmt.Append(nil, v))
		}
	}
	return all
}

// Decode reads the fields of an entry.
func Decode(fields [][]byte) (*pubsub.Message, error) {
	m := new(pubsub.Message)
	err := new(decoder).decode(m, fields)
	return m, err
}

// ReadReply reads an answer to XREADGROUP as a leg does.
func ReadReply(b []byte) (entries int, err error) {
	r, err := rawReply(b)
	if err != nil {
		return 0, err
	}
	r.each(func() {
		r.list()
		r.text()
		r.entries(nil, func(entryID, [][]byte) { entries++ })
	})
	return entries, r.err
}

// PlaceKey is the stream of a place.
var PlaceKey = placeKey

// Trim removes what is too old and settled.
func Trim(ctx context.Context, b *pubsub.Broker, topic string, age time.Duration) error {
	var c redis.UniversalClient
	b.As(&c)
	_, err := (&driver{client: c}).run(ctx, trimScript, []string{topic}, age.Milliseconds())
	return err
}

// Leave gives back what a consumer has of a group without an order.
func Leave(ctx context.Context, c redis.UniversalClient, topic, group, consumer string) error {
	due := groupKey("due", pubsub.Place{Topic: topic, Group: group}, 0)
	_, err := (&driver{client: c}).run(ctx, leaveScript, []string{topic, due, ""}, group, consumer, flag(false), flag(false), 1)
	return err
}

// Claim takes whatever a group has pending, as the owner of the group's exclusive lane does.
func Claim(ctx context.Context, c redis.UniversalClient, topic, group, consumer string, n int) (entries int, err error) {
	place := pubsub.Place{Topic: topic, Group: group}
	keys := []string{topic, groupKey("due", place, 0), groupKey("lease", place, 0)}
	r, err := (&driver{client: c}).run(ctx, claimScript, keys, group, consumer, consumer+".", n, 0, -1, flag(true))
	if err != nil {
		return 0, err
	}
	r.list()
	r.entries(nil, func(entryID, [][]byte) { entries++ })
	return entries, r.err
}

// LeaseKey is where an exclusive lane says who has it.
func LeaseKey(topic, group string) string {
	return groupKey("lease", pubsub.Place{Topic: topic, Group: group}, 0)
}

// LookedAfter is how many partitions a driver looks after for messages that wait there.
func LookedAfter(d pubsub.Driver) int {
	l := d.(*driver).later
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.parts)
}

// LaterStay lets a minute pass in which a source says that it reads, and nothing is published.
func LaterStay(src pubsub.Source) {
	s := src.(*source)
	l := s.d.later
	l.mu.Lock()
	for _, p := range l.parts {
		p.until = time.Time{}
	}
	l.mu.Unlock()
	s.deliverLater()
}

// WireTo opens a connection to the server that has a topic, and closes it.
func WireTo(ctx context.Context, d pubsub.Driver, topic string) error {
	w, err := d.(*driver).wireTo(ctx, streamKey(topic, 0), answerWithin)
	if err == nil {
		w.close()
	}
	return err
}
