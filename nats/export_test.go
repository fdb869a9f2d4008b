package nats

import (
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
	PartitionOf = partitionOf
	Again       = again[int]
)

// PrivateSubject is where a place of our own is in the stream NAME.
func PrivateSubject(stream string, p pubsub.Place, lane string) string {
	return names{stream}.subject(p, lane)
}

// Durable is the name of a group's consumer.
func Durable(p pubsub.Place, lane int32) string { return durable(p, lane) }
