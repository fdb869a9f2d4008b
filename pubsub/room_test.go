package pubsub

import (
	"testing"
	"time"
)

// TestRoomTogether compares the parts of the feeds with what they may have together.
func TestRoomTogether(t *testing.T) {
	for name, c := range map[string]struct {
		inFlight, concurrency, tiers int
		want                         int
	}{
		"the defaults":         {256, 64, 7, 256},
		"no tiers":             {256, 64, 0, 0},
		"parts that are large": {8, 8, 7, 0},
		"parts that just fit":  {20, 8, 7, 20},
	} {
		t.Run(name, func(t *testing.T) {
			sub := Subscription{MaxInFlight: c.inFlight, Concurrency: c.concurrency}
			cons := &Consumer{b: &Broker{}, sub: sub, tiers: Tiers()[:c.tiers]}
			together := 0
			for _, place := range append([]Place{{}}, tierPlaces(cons.tiers)...) {
				s := newFeed(cons, place).spec()
				if s.AllInFlight != c.want {
					t.Errorf("a source of %v may have %d in flight with the others, want %d", place, s.AllInFlight, c.want)
				}
				together += newFeed(cons, place).limit
			}
			if c.want > 0 && together+cons.awakeRoom() > c.want {
				t.Errorf("the parts are %d and %d, more than %d", together, cons.awakeRoom(), c.want)
			}
			if s := newFeed(cons, Place{Kind: PlaceQuarantine}).spec(); s.AllInFlight != 0 {
				t.Errorf("the quarantine shares %d with others", s.AllInFlight)
			}
		})
	}
}

func tierPlaces(tiers []time.Duration) (all []Place) {
	for _, t := range tiers {
		all = append(all, Place{Kind: PlaceRetry, Tier: t})
	}
	return all
}
