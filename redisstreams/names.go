package redisstreams

import (
	"math"
	"strconv"
	"strings"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Physical names. Partition 0 of a topic is the stream of the topic's own name, where other clients publish and read; partition n is {topic:n}. A group
// is a consumer group of each. Everything else of ours begins with the reserved "omnibus.", joins topic and group with "__", which neither has, and bears
// the partition in braces, so that in a cluster a partition and all that belongs to it lie on one node, and two partitions of a topic need not.
//
//	omnibus.topic.{topic}           hash: the number of partitions, how long messages are kept
//	omnibus.group.{topic}__g        hash: what the members of a group agree on
//	omnibus.members.{topic}__g      sorted set: the members, by when they were heard last
//	omnibus.lease.{topic}__g        string: whose the partition is, in an exclusive group
//	omnibus.due.{topic}__g          sorted set: entries of the group that wait, by when they are due
//	omnibus.retry.{topic}__g        stream: messages for this group alone
//	omnibus.quarantine.{topic}__g   stream
//	omnibus.dead.{topic}__g         stream
//	omnibus.state.{topic}__g        stream, of partition 0 alone: what became of the dead letters of all
//	omnibus.later.{topic}           stream: messages that are not to be delivered yet
//	omnibus.laterdue.{topic}        sorted set: those, by when they are due
//	omnibus.seen.{topic}:token      string: the entry that has this token
//	omnibus.handled.{topic}__g:id   string: of DedupStore
const (
	waitingName = "omnibus.waiting" // the consumer that has what waits
	leftName    = "omnibus.left"    // the consumer that has what a member of an exclusive group gave back
)

// Positions: the id of an entry, and in which stream: the partition and the kind of place.
const (
	positionKind = 3
	placeBits    = 3
)

func tag(topic string, lane int32) string {
	if lane == 0 {
		return "{" + topic + "}"
	}
	return "{" + topic + ":" + strconv.Itoa(int(lane)) + "}"
}

func streamKey(topic string, lane int32) string {
	if lane == 0 {
		return topic
	}
	return tag(topic, lane)
}

// topicKey is what belongs to a partition, groupKey what belongs to a group's part of it.
func topicKey(kind, topic string, lane int32) string {
	return "omnibus." + kind + "." + tag(topic, lane)
}

func groupKey(kind string, p pubsub.Place, lane int32) string {
	return topicKey(kind, p.Topic, lane) + "__" + p.Group
}

// placeKey is the stream of a place.
func placeKey(p pubsub.Place, lane int32) string {
	switch p.Kind {
	case pubsub.PlaceRetry:
		return groupKey("retry", p, lane)
	case pubsub.PlaceQuarantine:
		return groupKey("quarantine", p, lane)
	case pubsub.PlaceDead:
		return groupKey("dead", p, lane)
	case pubsub.PlaceState:
		return groupKey("state", p, lane)
	}
	return streamKey(p.Topic, lane)
}

// spread says whether a place has the partitions of its topic; the others have one.
func spread(k pubsub.PlaceKind) bool { return k != pubsub.PlaceQuarantine && k != pubsub.PlaceState }

// An entryID is the id of an entry of a stream: milliseconds, and a number among those.
type entryID struct{ ms, seq uint64 }

func parseID(b []byte) (id entryID, ok bool) {
	ms, seq, ok := strings.Cut(string(b), "-")
	var err, err2 error
	id.ms, err = strconv.ParseUint(ms, 10, 64)
	id.seq, err2 = strconv.ParseUint(seq, 10, 64)
	return id, ok && err == nil && err2 == nil
}

func (id entryID) String() string {
	var room [48]byte
	b := append(strconv.AppendUint(room[:0], id.ms, 10), '-')
	return string(strconv.AppendUint(b, id.seq, 10))
}

func (id entryID) less(o entryID) bool { return id.ms < o.ms || id.ms == o.ms && id.seq < o.seq }

// before is the id just before this one: a group that is to begin with an entry has got everything up to there.
func (id entryID) before() entryID {
	switch {
	case id.seq > 0:
		return entryID{id.ms, id.seq - 1}
	case id.ms > 0:
		return entryID{id.ms - 1, math.MaxUint64}
	}
	return id
}

// after is the id just behind this one.
func (id entryID) after() entryID {
	if id.seq == math.MaxUint64 {
		return entryID{id.ms + 1, 0}
	}
	return entryID{id.ms, id.seq + 1}
}

func (id entryID) position(lane int32, kind pubsub.PlaceKind) pubsub.Position {
	return pubsub.NewPosition(positionKind, int64(id.ms), int64(id.seq), lane<<placeBits|int32(kind))
}

// idAt is the id of a position, in the partition that it is of; in others the first one of its millisecond.
func idAt(p pubsub.Position, lane int32, kind pubsub.PlaceKind) entryID {
	k, ms, seq, at := p.Parts()
	switch {
	case k != positionKind || at&(1<<placeBits-1) != int32(kind):
		return entryID{}
	case at>>placeBits != lane:
		return entryID{uint64(ms), 0}
	}
	return entryID{uint64(ms), uint64(seq)}
}

// startID is what a group that starts there has got already.
func startID(s pubsub.Start, lane int32) string {
	kind, at, pos := s.Parts()
	switch kind {
	case pubsub.StartEarliest:
		return "0-0"
	case pubsub.StartTime:
		return entryID{uint64(max(at.UnixMilli(), 0)), 0}.before().String()
	case pubsub.StartPosition:
		return idAt(pos, lane, pubsub.PlaceMain).before().String()
	}
	return "$"
}
