package kafka

import (
	"strings"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Physical names. A topic is the Kafka topic of the same name. A group of it is the consumer group TOPIC__GROUP, a pattern as the user
// wrote it. Private places are topics that begin with the reserved "omnibus.", so that no pattern of a user covers them, and join topic and
// group with "__", which neither has:
//
//	omnibus.retry.TOPIC__GROUP       what is sent to the group alone: partition n belongs to partition n of the topic
//	omnibus.tiers.TOPIC__GROUP       retries that wait, n partitions for each of the 7 tiers, the shortest first
//	omnibus.quarantine.TOPIC__GROUP  one partition; its first record describes the group
//	omnibus.dead.TOPIC__GROUP        one partition
//	omnibus.state.TOPIC__GROUP       what became of the dead letters, one partition, kept as long as they are
//
// In a private place's name "*" of a pattern is "__a" and ">" is "__r".
const (
	kindRetry      = "retry"
	kindTiers      = "tiers"
	kindQuarantine = "quarantine"
	kindDead       = "dead"
	kindState      = "state"
	maxTopicName   = 249
)

var wildcards = strings.NewReplacer("*", "__a", ">", "__r")

func groupID(p pubsub.Place) string { return p.Topic + "__" + p.Group }

func private(kind string, p pubsub.Place) string {
	return "omnibus." + kind + "." + wildcards.Replace(p.Topic) + "__" + p.Group
}

// topicOf is the Kafka topic where a place is.
func topicOf(p pubsub.Place) string {
	switch p.Kind {
	case pubsub.PlaceRetry:
		if p.Tier > 0 {
			return private(kindTiers, p)
		}
		return private(kindRetry, p)
	case pubsub.PlaceQuarantine:
		return private(kindQuarantine, p)
	case pubsub.PlaceDead:
		return private(kindDead, p)
	case pubsub.PlaceState:
		return private(kindState, p)
	}
	return p.Topic
}

// tierIndex is which tier that is, -1 if none.
func tierIndex(d time.Duration) int32 {
	for i, t := range pubsub.Tiers() {
		if t == d {
			return int32(i)
		}
	}
	return -1
}

// span is which partitions of its topic, which has n, a place has.
func span(p pubsub.Place, n int32) (from, to int32) {
	if p.Kind != pubsub.PlaceRetry || p.Tier == 0 {
		return 0, n
	}
	each := n / int32(len(pubsub.Tiers()))
	i := tierIndex(p.Tier)
	return i * each, (i + 1) * each
}

// Positions: an offset in a partition, and which of a group's topics.
const positionKind = 2

func storeOf(p pubsub.Place) int64 {
	switch p.Kind {
	case pubsub.PlaceRetry:
		if p.Tier > 0 {
			return 4
		}
		return 1
	case pubsub.PlaceQuarantine:
		return 2
	case pubsub.PlaceDead:
		return 3
	case pubsub.PlaceState:
		return 5
	}
	return 0
}

// murmur2 is the hash by which the Java client, and all that agree with it, finds the partition of a key.
func murmur2(key string) uint32 {
	const m = 0x5bd1e995
	n := len(key)
	h := uint32(0x9747b28c) ^ uint32(n)
	for ; len(key) >= 4; key = key[4:] {
		k := uint32(key[0]) | uint32(key[1])<<8 | uint32(key[2])<<16 | uint32(key[3])<<24
		k *= m
		k ^= k >> 24
		k *= m
		h *= m
		h ^= k
	}
	switch len(key) {
	case 3:
		h ^= uint32(key[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(key[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(key[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return h
}

// partitionOf is the partition of a key.
func partitionOf(key string, n int32) int32 { return int32(murmur2(key)&0x7fffffff) % n }
