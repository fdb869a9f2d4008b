package nats

import (
	"strconv"
	"strings"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Physical names. A topic is the subject of the same name in the stream; what a foreign client publishes there is partition 0. The
// other partitions have subjects of ours. A group is a durable consumer. Private places are subjects in two streams beside it: one
// for what is settled once (retries, replays, quarantine), one for dead letters and what became of them. Everything of ours begins with the reserved "omnibus.", so
// that no pattern of a user covers it, and joins topic and group with "__", which neither has.
const (
	lanePrefix = "omnibus.lane."
	partsKey   = "omnibus.partitions." // of the stream's metadata, followed by the topic
	pinGroup   = "omnibus"             // the priority group of exclusive consumers
)

type names struct{ stream string }

func (n names) work() string { return n.stream + "__work" }
func (n names) dead() string { return n.stream + "__dead" }

// token is a topic or pattern as one segment that can be a consumer's name.
func token(topic string) string {
	return strings.NewReplacer(".", "=", "*", "+", ">", "++").Replace(topic)
}

// durable is the consumer of a group: in the stream, and in the work stream.
func durable(p pubsub.Place, lane int32) string {
	name := token(p.Topic) + "__" + p.Group
	switch {
	case p.Kind == pubsub.PlaceQuarantine:
		name += "__quarantine"
	case lane > 0:
		name += "__" + strconv.Itoa(int(lane))
	}
	return name
}

// subject is where a private place is. What is sent to a group lies in the partition of its key too; lane is then its number, or "*".
func (n names) subject(p pubsub.Place, lane string) string {
	kind := "retry"
	switch p.Kind {
	case pubsub.PlaceRetry:
		return "omnibus.retry." + n.stream + "." + token(p.Topic) + "__" + p.Group + "." + lane
	case pubsub.PlaceQuarantine:
		kind = "quarantine"
	case pubsub.PlaceDead:
		kind = "dead"
	case pubsub.PlaceState: // below a subject of dead letters, so that it lies in their stream and is kept as long
		return "omnibus.dead." + n.stream + "." + token(p.Topic) + "__" + p.Group + ".state"
	}
	return "omnibus." + kind + "." + n.stream + "." + token(p.Topic) + "__" + p.Group
}

// later is where a message waits until its time: each has a subject of its own, since the server keeps one for each.
func (n names) later() string { return "omnibus.later." + n.stream + "." }

// member is where the members of a group answer.
func (n names) member(p pubsub.Place) string {
	return "omnibus.member." + n.stream + "." + durable(p, 0)
}

// active is where the one answers that reads an exclusive consumer.
func (n names) active(consumer string) string { return "omnibus.active." + n.stream + "." + consumer }

func laneSubject(topic string, lane int32) string {
	if lane == 0 {
		return topic
	}
	return lanePrefix + strconv.Itoa(int(lane)) + "." + topic
}

// topicOf undoes laneSubject.
func topicOf(subject string) string {
	rest, ok := strings.CutPrefix(subject, lanePrefix)
	if !ok {
		return subject
	}
	_, topic, _ := strings.Cut(rest, ".")
	return topic
}

// filters are the subjects of all partitions of a topic or pattern. Those of a pattern may cover a partition of a topic that it does not
// match ("*.>"); the source passes over such a message.
func filters(topic string, parts int) []string {
	lanes := lanePrefix + "*." + topic
	if pubsub.IsPattern(topic) && !overlap(topic, lanes) || !pubsub.IsPattern(topic) && parts > 1 {
		return []string{topic, lanes}
	}
	return []string{topic}
}

// overlap says whether some subject matches both filters.
func overlap(a, b string) bool {
	for {
		x, aRest, aMore := strings.Cut(a, ".")
		y, bRest, bMore := strings.Cut(b, ".")
		switch {
		case x == ">" || y == ">":
			return true
		case x != "*" && y != "*" && x != y, aMore != bMore:
			return false
		case !aMore:
			return true
		}
		a, b = aRest, bRest
	}
}

// covers says whether a stream's subject captures all that a topic or pattern matches.
func covers(subject, topic string) bool {
	for {
		s, sRest, sMore := strings.Cut(subject, ".")
		t, tRest, tMore := strings.Cut(topic, ".")
		switch {
		case s == ">":
			return true
		case t == ">", s != "*" && s != t, sMore != tMore:
			return false
		case !sMore:
			return true
		}
		subject, topic = sRest, tRest
	}
}
