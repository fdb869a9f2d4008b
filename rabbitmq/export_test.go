package rabbitmq

import (
	"context"
	"fmt"
	"net"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/pubsub"
)

// What the tests of the wire format and of the names look into.
var (
	Encode      = encode
	Decode      = decode
	Typed       = typed
	ParseNative = parseNative
	Native      = formatNative
	Key         = key
	TopicOf     = topicOf
	Classify    = classify
	HeaderBytes = headerBytes
)

// QueueName is what a place is called where the topics are in an exchange.
func QueueName(exchange, template string, p pubsub.Place, lane int32) string {
	return names{exchange, template}.queue(p, lane)
}

// LongestName is the longest that a group of a topic needs.
func LongestName(exchange string, p pubsub.Place) string {
	p.Kind = pubsub.PlaceQuarantine
	return names{exchange, ""}.queue(p, 0)
}

// Bound says whether a pattern's bindings let a queue have a partition of a topic; matches is the broker's rule.
func Bound(pattern, topic string, lane int32, matches func(binding, key string) bool) bool {
	n := names{exchange: defaultExchange}
	for _, b := range n.bindings(pattern, -1) {
		if b.exchange == n.exchangeOf(lane) && matches(b.key, key(topic, lane)) {
			return true
		}
	}
	return false
}

// Delay is where a message goes that is to wait; it gets the headers for that.
func Delay(m *amqp.Publishing, d time.Duration) (exchange string) {
	return names{exchange: defaultExchange}.delay(m, d)
}

// Corked is a connection that can be corked.
func Corked(c net.Conn) (conn net.Conn, cork func(), uncork func() error) {
	w := &wire{Conn: c}
	return w, w.cork, w.uncork
}

// Held is how many deliveries a source keeps.
func Held(src pubsub.Source) (n int) {
	s := src.(*source)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ln := range s.lanes {
		n += len(ln.held)
	}
	return n
}

// Refused is how many messages wait until their copies are sent once more.
func Refused(src pubsub.Source) (n int) {
	s := src.(*source)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ln := range s.lanes {
		for _, dl := range ln.held {
			if dl.state == deliveryMoving {
				n++
			}
		}
	}
	return n - len(s.moves) - len(s.copies)
}

// AttachDead lets a session die while it attaches a lane.
func AttachDead(ctx context.Context, src pubsub.Source) error {
	s := src.(*source)
	s.die(errGone)
	return s.lanes[0].attach(ctx)
}

// Away is how many lanes are given up and not attached again.
func Away(src pubsub.Source) (n int) {
	s := src.(*source)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ln := range s.lanes {
		if ln.away {
			n++
		}
	}
	return n
}

// Share tells a source of an exclusive group how many members there are.
func Share(src pubsub.Source, members int) { src.(*source).share(members, time.Now()) }

// Silent lets a while pass in which nothing comes, and lets lanes begin anew that are to.
func Silent(ctx context.Context, src pubsub.Source) error {
	s := src.(*source)
	s.mu.Lock()
	for _, ln := range s.lanes {
		ln.heard = time.Time{}
	}
	s.mu.Unlock()
	if s.exclusive {
		_, err := s.look(ctx)
		return err
	}
	return s.lanes[0].anew(ctx)
}

// PartsOf is how many partitions a topic has.
func PartsOf(ctx context.Context, d pubsub.Driver, topic string) (int, error) {
	return d.(*driver).partsOf(ctx, topic)
}

// Later lets time pass since topics were looked at.
func Later(d pubsub.Driver, passed time.Duration) {
	own := d.(*driver)
	own.mu.Lock()
	defer own.mu.Unlock()
	for name, t := range own.topics {
		own.topics[name] = seenTopic{t.parts, t.at.Add(-passed)}
	}
}

// Unknown is how many topics are remembered that there are not, when so many were looked for, then time passed, and then some more were.
func Unknown(before int, passed time.Duration, then int) int {
	d := &driver{names: names{exchange: "of others"}, topics: map[string]seenTopic{}}
	for i := range before + then {
		if i == before {
			Later(d, passed)
		}
		d.note(fmt.Sprint(i), notOurs)
	}
	return len(d.topics)
}
