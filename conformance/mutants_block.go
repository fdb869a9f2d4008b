package conformance

import (
	"bytes"
	"iter"
	"sync/atomic"

	"github.com/omnibus-go/omnibus/internal/deadevent"
	"github.com/omnibus-go/omnibus/pubsub"
)

// blockMutants open keys that are blocked, or keep them closed.
func blockMutants() []Mutant {
	const breaks = "DeadLetters/BlockKey"
	return []Mutant{
		{"does not say which dead letter it shows to whoever follows another member", breaks, func() *mutation {
			var members atomic.Int64
			return &mutation{
				wrapSource: func(_ pubsub.Driver, s pubsub.SourceSpec, src pubsub.Source) pubsub.Source {
					if s.From.Kind == pubsub.PlaceMain {
						members.Add(1)
					}
					return src
				},
				browse: func(p pubsub.Place, all iter.Seq2[pubsub.Record, error]) iter.Seq2[pubsub.Record, error] {
					if p.Kind != pubsub.PlaceDead || members.Load() < 2 {
						return all
					}
					return func(yield func(pubsub.Record, error) bool) {
						for r, err := range all {
							if err == nil {
								unsaid(&r, "omnibus-dlq-id")
							}
							if !yield(r, err) {
								return
							}
						}
					}
				},
			}
		}},
		{"forgets what is discarded", breaks, func() *mutation {
			return &mutation{out: func(o *pubsub.Out) outFate {
				if o.To.Kind == pubsub.PlaceState && bytes.Contains(o.Msg.Payload, []byte(`"op":"`+deadevent.Discard+`"`)) {
					return outLose
				}
				return outStore
			}}
		}},
		{"forgets the key of every 7th message", breaks, func() *mutation {
			strike := every(7)
			return &mutation{record: func(_ *tapSource, r *pubsub.Record) recordFate {
				if strike() {
					m := r.Msg.Clone()
					m.Key = ""
					r.Msg = &m
				}
				return recordKeep
			}}
		}},
		{"does not say of replays that they are", breaks, func() *mutation {
			return &mutation{record: func(_ *tapSource, r *pubsub.Record) recordFate {
				unsaid(r, "omnibus-replay-of")
				return recordKeep
			}}
		}},
	}
}

// unsaid takes a header off a record.
func unsaid(r *pubsub.Record, header string) {
	if _, ok := r.Msg.Headers.Lookup(header); ok {
		m := r.Msg.Clone()
		m.Headers.Del(header)
		r.Msg = &m
	}
}
