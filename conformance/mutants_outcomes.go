package conformance

import (
	"context"
	"iter"
	"slices"
	"sync/atomic"

	"github.com/omnibus-go/omnibus/pubsub"
)

// outcomeMutants break what is kept of what becomes of dead letters.
func outcomeMutants() []Mutant {
	return []Mutant{
		{"forgets every 4th outcome", "DeadLetters/OutcomeIsTold", func() *mutation {
			n := 0
			return &mutation{out: func(o *pubsub.Out) outFate {
				if o.To.Kind == pubsub.PlaceState {
					if n++; n%4 == 0 {
						return outLose
					}
				}
				return outStore
			}}
		}},
		{"acks every 4th message when it is delivered", "DeadLetters/OutcomeBeforeAck", func() *mutation { return acksEarly(4) }},
		{"takes what is denied for an outage", "DeadLetters/OutcomeDenied", func() *mutation {
			return &mutation{classify: func(code pubsub.Code, final bool) (pubsub.Code, bool) {
				if code == pubsub.ErrDenied {
					return pubsub.ErrUnavailable, false
				}
				return code, final
			}}
		}},
		{"purges one more than it is asked to", "DeadLetters/Purge", func() *mutation {
			return &mutation{purge: func(ctx context.Context, below optional, p pubsub.Place, upTo pubsub.Position) pubsub.Position {
				for r, err := range below.Browse(ctx, p, upTo) {
					if err == nil && r.Pos != upTo {
						return r.Pos
					}
				}
				return upTo
			}}
		}},
		{"trims what became of dead letters as it does their topic", "DeadLetters/StatesAreKept", func() *mutation {
			var n atomic.Int64 // browses go on while messages are sent
			return &mutation{
				out: func(*pubsub.Out) outFate { n.Add(1); return outStore },
				browse: func(p pubsub.Place, all iter.Seq2[pubsub.Record, error]) iter.Seq2[pubsub.Record, error] {
					if p.Kind != pubsub.PlaceState {
						return all
					}
					return func(yield func(pubsub.Record, error) bool) {
						skip := (n.Load() - 300) / 100
						for r, err := range all {
							if skip--; skip < 0 && !yield(r, err) {
								return
							}
						}
					}
				},
			}
		}},
		{"forgets what is told of dead letters behind every 90th message", "DeadLetters/StatesAreKept", func() *mutation {
			n, due := 0, false
			return &mutation{out: func(o *pubsub.Out) outFate {
				if n++; n%90 == 0 {
					due = true
				}
				if !due || o.To.Kind != pubsub.PlaceState {
					return outStore
				}
				due = false
				return outLose
			}}
		}},
		{"shows what became of dead letters in another order at every 50th look", "DeadLetters/StatesAreKept", func() *mutation {
			looks := 0
			return &mutation{browse: func(p pubsub.Place, all iter.Seq2[pubsub.Record, error]) iter.Seq2[pubsub.Record, error] {
				if p.Kind != pubsub.PlaceState {
					return all
				}
				return func(yield func(pubsub.Record, error) bool) {
					var shown []pubsub.Record
					for r, err := range all {
						if err != nil {
							yield(r, err)
							return
						}
						shown = append(shown, r)
					}
					if looks++; looks > 150 && looks%50 == 0 {
						slices.Reverse(shown)
					}
					for _, r := range shown {
						if !yield(r, nil) {
							return
						}
					}
				}
			}}
		}},
	}
}
