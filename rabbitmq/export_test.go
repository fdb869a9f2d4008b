package rabbitmq

import (
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
