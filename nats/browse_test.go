package nats_test

import (
	"fmt"
	"testing"

	"github.com/omnibus-go/omnibus/pubsub"
)

// In a cluster any server may answer who looks, also one that does not have yet what the leader has just confirmed.
func TestBrowsingShowsWhatIsConfirmed(t *testing.T) {
	const rounds, each = 300, 20
	b := ownServer(t, "cluster").open(t)
	sub := pubsub.Subscription{Topic: "orders", Group: "g"}
	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "orders"}}, Groups: []pubsub.Subscription{sub}}); err != nil {
		t.Fatal(err)
	}
	place := pubsub.Place{Topic: "orders", Group: "g", Kind: pubsub.PlaceDead}
	var from pubsub.Position
	for round := range rounds {
		done := make(chan error, each)
		for i := range each {
			m := pubsub.Message{ID: fmt.Sprintf("%d.%d", round, i), Payload: []byte("x")}
			b.Resend(t.Context(), place, m, pubsub.Dedup{}, func(_ pubsub.Receipt, err error) { done <- err })
		}
		for range each {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		got := 0
		for r, err := range b.Browse(t.Context(), place, from) {
			if err != nil {
				t.Fatal(err)
			}
			if r.Pos != from {
				got++
			}
			from = r.Pos
		}
		if got != each {
			t.Fatalf("in round %d %d of %d are shown", round, got, each)
		}
	}
}
