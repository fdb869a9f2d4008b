package conformance

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// movedMutants break retries that are moved away: where the broker delays them, and in tiers.
func movedMutants() []Mutant {
	const breaks = "Retry/MovedPartition"
	return []Mutant{
		{"lets retries go after two seconds that are to wait longer", breaks, func() *mutation {
			return delays(func(d time.Duration) time.Duration { return min(d, 2*time.Second) })
		}},
		{"does not carry when every 5th message in a tier is due", breaks, func() *mutation { return losesInTiers("omnibus-retry", 5) }},
		{"does not carry the attempts of every 90th message in a tier", breaks, func() *mutation { return losesInTiers("omnibus-attempts", 90) }},
		{"knows a copy in a tier by the id of its message", breaks, func() *mutation {
			return tiered(&mutation{out: func(o *pubsub.Out) outFate {
				if o.To.Tier > 0 {
					o.Dedup = pubsub.Dedup{}
					copy(o.Dedup[:], o.Msg.ID[max(0, len(o.Msg.ID)-len(o.Dedup)):])
				}
				return outStore
			}})
		}},
		{"never resumes a tier that has come from another member", breaks, func() *mutation {
			var mu sync.Mutex
			var members []string
			return tiered(&mutation{wrapSource: func(_ pubsub.Driver, s pubsub.SourceSpec, src pubsub.Source) pubsub.Source {
				mu.Lock()
				defer mu.Unlock()
				if !slices.Contains(members, s.Member) {
					members = append(members, s.Member)
				}
				if s.From.Tier > 0 && slices.Index(members, s.Member) > 1 {
					return silent{src}
				}
				return src
			}})
		}},
	}
}

// A silent source has lanes, and never reads them.
type silent struct{ pubsub.Source }

func (s silent) Recv(ctx context.Context, _ []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	return s.Source.Recv(ctx, nil, maxBytes)
}

// tiered has the mutant say that it delays nothing and has tiers.
func tiered(m *mutation) *mutation {
	m.capabilities = func(c *pubsub.Capabilities) { c.RetryIn, c.Tiers, c.Waiting = 0, true, pubsub.WaitingListed }
	return m
}

// losesInTiers drops a header of each n-th message that is stored in a tier.
func losesInTiers(header string, n int) *mutation {
	strike := every(n)
	return tiered(&mutation{out: func(o *pubsub.Out) outFate {
		if o.To.Tier > 0 && strike() {
			edit(o, func(m *pubsub.Message) { m.Headers.Del(header) })
		}
		return outStore
	}})
}
