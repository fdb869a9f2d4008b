package nats_test

import (
	"strings"
	"testing"

	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
)

func TestOverlap(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a.b", "a", false}, {"a.b", "a.b", true}, {"*", "a", true}, {"*", "a.b", false}, {"*.b", "a.*", true}, {"*.b", "a.c", false},
		{">", "a.b.c", true}, {"a.>", "a.b", true}, {"a.>", "a", false}, {"a.>", "b.>", false}, {"*.>", "a.b", true}, {"a.*.c", "a.>", true}, {"a.*.c", "*.b.d", false},
	} {
		if got := nats.Overlap(c.a, c.b); got != c.want {
			t.Errorf("overlap(%q, %q) = %v", c.a, c.b, got)
		}
		if got := nats.Overlap(c.b, c.a); got != c.want {
			t.Errorf("overlap(%q, %q) = %v", c.b, c.a, got)
		}
	}
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		subject, topic string
		want           bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a", "a.b", false}, {"a.b", "a", false}, {"*", "a", true}, {"*", "*", true}, {"a", "*", false}, {"*", "a.b", false},
		{">", "a", true}, {">", "a.*", true}, {">", ">", true}, {"a.>", "a", false}, {"a.>", "a.b.c", true}, {"a.>", "a.>", true}, {"a.*", "a.>", false}, {"a.*.c", "a.b.c", true},
		{"a.*.c", "a.b.d", false}, {"*.>", "a.b", true}, {"*.b", "a.*", false},
	} {
		if got := nats.Covers(c.subject, c.topic); got != c.want {
			t.Errorf("covers(%q, %q) = %v", c.subject, c.topic, got)
		}
	}
}

// No pattern of a user matches what is private, and places do not meet each other.
func TestPrivateNames(t *testing.T) {
	seen := map[string]string{}
	for _, topic := range []string{"a", "a.b", "a-b", "a_b", "a.*", "a.>", "*", ">", "A"} {
		for _, group := range []string{"g", "g-1", "G"} {
			for _, kind := range []pubsub.PlaceKind{pubsub.PlaceRetry, pubsub.PlaceQuarantine, pubsub.PlaceDead, pubsub.PlaceState} {
				p := pubsub.Place{Topic: topic, Group: group, Kind: kind}
				subject := nats.PrivateSubject("s", p, "0")
				if !strings.HasPrefix(subject, "omnibus.") || pubsub.MatchPattern(">", subject) || strings.ContainsAny(subject, "*> ") {
					t.Errorf("%+v is at %q", p, subject)
				}
				if other := seen[subject]; other != "" {
					t.Errorf("%+v and %s are both at %q", p, other, subject)
				}
				seen[subject] = topic + "/" + group
			}
			name := nats.Durable(pubsub.Place{Topic: topic, Group: group}, 0)
			if strings.ContainsAny(name, ".*> /\\") {
				t.Errorf("no consumer can be called %q", name)
			}
			if other := seen[name]; other != "" {
				t.Errorf("%s/%s and %s have the same consumer %q", topic, group, other, name)
			}
			seen[name] = topic + "/" + group
		}
	}
}

func TestPartitions(t *testing.T) {
	for _, lane := range []int32{0, 1, 12} {
		if got := nats.TopicOf(nats.LaneSubject("a.b", lane)); got != "a.b" {
			t.Errorf("partition %d belongs to %q", lane, got)
		}
	}
}
