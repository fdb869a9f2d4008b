package kafka_test

import (
	_ "embed"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

//go:embed testdata/partitions.txt
var javaPartitions string

// TestPartitionsAsJava compares with what the Java client has said, see testdata/Partitions.java.
func TestPartitionsAsJava(t *testing.T) {
	t.Parallel()
	n := 0
	for line := range strings.Lines(javaPartitions) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		for i, parts := range []int32{1, 3, 12} {
			n++
			if got := kafka.PartitionOf(f[0], parts); strconv.Itoa(int(got)) != f[i+1] {
				t.Errorf("key %q is in partition %d of %d, Java puts it into %s", f[0], got, parts, f[i+1])
			}
		}
	}
	if n != 3000 {
		t.Errorf("%d partitions were compared, want 3000", n)
	}
}

func TestTopicsOfPlaces(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		p    pubsub.Place
		want string
	}{
		{pubsub.Place{Topic: "orders.eu"}, "orders.eu"},
		{pubsub.Place{Topic: "orders.eu", Group: "g"}, "orders.eu"},
		{pubsub.Place{Topic: "orders.eu", Group: "g", Kind: pubsub.PlaceRetry}, "omnibus.retry.orders.eu__g"},
		{pubsub.Place{Topic: "orders.eu", Group: "g", Kind: pubsub.PlaceRetry, Tier: time.Second}, "omnibus.tiers.orders.eu__g"},
		{pubsub.Place{Topic: "*.eu", Group: "g", Kind: pubsub.PlaceQuarantine}, "omnibus.quarantine.__a.eu__g"},
		{pubsub.Place{Topic: "orders.>", Group: "g", Kind: pubsub.PlaceDead}, "omnibus.dead.orders.__r__g"},
		{pubsub.Place{Topic: "orders.>", Group: "g", Kind: pubsub.PlaceState}, "omnibus.state.orders.__r__g"},
	} {
		got := kafka.TopicOf(x.p)
		if got != x.want {
			t.Errorf("%+v is in %q, want %q", x.p, got, x.want)
		}
		if strings.HasPrefix(got, "omnibus.") && (pubsub.MatchPattern(">", got) || pubsub.MatchPattern("*.>", got)) {
			t.Errorf("a pattern matches %q", got)
		}
	}
}

// TestTiersHaveTheirPartitions looks that the tiers of a topic share its partitions without a rest that nobody reads.
func TestTiersHaveTheirPartitions(t *testing.T) {
	t.Parallel()
	owner := map[int32]time.Duration{}
	for _, tier := range pubsub.Tiers() {
		from, to := kafka.Span(pubsub.Place{Topic: "t", Group: "g", Kind: pubsub.PlaceRetry, Tier: tier}, 21)
		for p := from; p < to; p++ {
			if o, taken := owner[p]; taken {
				t.Errorf("partition %d belongs to the tiers %v and %v", p, o, tier)
			}
			owner[p] = tier
		}
	}
	if len(owner) != 21 {
		t.Errorf("%d of 21 partitions belong to a tier", len(owner))
	}
}
