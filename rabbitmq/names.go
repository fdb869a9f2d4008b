package rabbitmq

import (
	"strconv"
	"strings"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Physical names. A topic is the routing key of the same name on the topic exchange; what a foreign client publishes there is partition 0. The other
// partitions have routing keys of ours, in an exchange of ours, where no pattern takes them for topics. A group is a queue TOPIC__GROUP, bound to the exchange, and one for each further partition, TOPIC__GROUP__1, where one
// member at a time is to have it. Everything else is ours and begins with the reserved "omnibus."; it is reached by its name, so that no pattern covers it.
// Of an exchange other than the default all names have it in them.
const (
	defaultExchange = "omnibus"
	lanePrefix      = "omnibus.lane."
	maxExchange     = 40 // bytes: with it the longest name has 255
)

type names struct {
	exchange string
	queues   string // the template of Config.Queues; "" = queues are ours
}

// own is a name of ours for the whole exchange.
func (n names) own(kind string) string {
	if n.exchange == defaultExchange {
		return "omnibus." + kind
	}
	return "omnibus." + n.exchange + ":" + kind
}

// of joins a topic and a group.
func of(p pubsub.Place) string { return p.Topic + "__" + p.Group }

// queue is where a place is.
func (n names) queue(p pubsub.Place, lane int32) string {
	switch {
	case p.Kind == pubsub.PlaceQuarantine:
		return n.own("quarantine." + of(p))
	case p.Kind == pubsub.PlaceDead:
		return n.own("dead." + of(p))
	case p.Kind == pubsub.PlaceState:
		return n.own("state." + of(p))
	case n.queues != "":
		return strings.NewReplacer("{topic}", p.Topic, "{group}", p.Group).Replace(n.queues)
	}
	name := of(p)
	if lane > 0 {
		name += "__" + strconv.Itoa(int(lane))
	}
	if n.exchange != defaultExchange {
		name = n.exchange + ":" + name
	}
	return name
}

// topic is an exchange to which nothing is ever published: that it is there says that the topic is, and one of its arguments how many partitions it has.
func (n names) topic(topic string) string { return n.own("topic." + topic) }

// step is a step of the ladder, exchange and queue: see ladder.go.
func (n names) step(i int) string { return n.own("wait." + strconv.Itoa(i)) }

// due is the exchange to which everything comes that has waited; topics is where it sends what is for no single queue.
func (n names) due() string    { return n.own("due") }
func (n names) topics() string { return n.own("due.topics") }

// void is a queue that keeps nothing.
func (n names) void() string { return n.own("void") }

// later is the exchange to which a partition of a topic is published with a delay; taker is one that is there as long as a queue of a group: see ladder.go.
func (n names) later(lane int32) string {
	if lane == 0 {
		return n.own("later")
	}
	return n.own("later.lanes")
}

func (n names) taker(p pubsub.Place, lane int) string {
	name := n.own("taker." + of(p))
	if lane > 0 {
		name += "__" + strconv.Itoa(lane)
	}
	return name
}

// lanes is the exchange of all partitions but the first.
func (n names) lanes() string { return n.own("lanes") }

// exchangeOf is where a partition is published.
func (n names) exchangeOf(lane int32) string {
	if lane == 0 {
		return n.exchange
	}
	return n.lanes()
}

// lost is the exchange to which a queue sends what it gives up by itself.
func (n names) lost() string { return n.own("lost") }

// key is the routing key of a partition.
func key(topic string, lane int32) string {
	if lane == 0 {
		return topic
	}
	return lanePrefix + strconv.Itoa(int(lane)) + "." + topic
}

// topicOf undoes key.
func topicOf(key string) string {
	rest, ok := strings.CutPrefix(key, lanePrefix)
	if !ok {
		return key
	}
	_, topic, _ := strings.Cut(rest, ".")
	return topic
}

// A binding lets a queue have what is published to an exchange.
type binding struct{ exchange, key string }

// bindings are those of a topic or pattern: of one partition, or (lane < 0) of all.
func (n names) bindings(topic string, lane int32) []binding {
	if rest, ok := strings.CutSuffix(topic, ">"); ok {
		topic = rest + "*.#" // "#" alone is no segment, too
	}
	if lane >= 0 {
		return []binding{{n.exchangeOf(lane), key(topic, lane)}}
	}
	return []binding{{n.exchange, topic}, {n.lanes(), lanePrefix + "*." + topic}}
}
