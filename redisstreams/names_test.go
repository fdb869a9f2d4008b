package redisstreams_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/redisstreams"
)

// slotOf is what decides in a cluster which node has a key: what is in the first braces, or all of it.
func slotOf(key string) string {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if in, _, ok := strings.Cut(rest, "}"); ok && in != "" {
			return in
		}
	}
	return key
}

// Places do not meet each other, none is a topic's name, and what belongs to a partition lies where that does.
func TestPlaces(t *testing.T) {
	seen := map[string]string{}
	for _, topic := range []string{"a", "a.b", "a-b", "a_b", "A"} {
		for lane := range int32(3) {
			stream := redisstreams.PlaceKey(pubsub.Place{Topic: topic}, lane)
			if lane == 0 && stream != topic {
				t.Errorf("other clients find %s at %q", topic, stream)
			}
			for _, group := range []string{"g", "g-1", "G"} {
				for _, kind := range []pubsub.PlaceKind{pubsub.PlaceRetry, pubsub.PlaceQuarantine, pubsub.PlaceDead, pubsub.PlaceState} {
					key, who := redisstreams.PlaceKey(pubsub.Place{Topic: topic, Group: group, Kind: kind}, lane), fmt.Sprint(topic, lane, group, kind)
					if !strings.HasPrefix(key, "omnibus.") || slotOf(key) != slotOf(stream) {
						t.Errorf("%s is at %q, its stream at %q", who, key, stream)
					}
					if other := seen[key]; other != "" {
						t.Errorf("%s and %s are both at %q", who, other, key)
					}
					seen[key] = who
				}
			}
			if other := seen[stream]; other != "" {
				t.Errorf("%s is at %q, too", other, stream)
			}
			seen[stream] = topic
		}
	}
}
