package conformance

import (
	"iter"
	"slices"
	"sync"

	"github.com/omnibus-go/omnibus/pubsub"
)

// placeMutants break the places of topics and groups.
func placeMutants() []Mutant {
	return []Mutant{
		{"gives what is sent to a group alone a lane of its own", "Order/SentToGroup", func() *mutation {
			const beside = int32(1) << 20
			alone := map[string]bool{}
			return &mutation{
				out: func(o *pubsub.Out) outFate {
					if o.To.Kind == pubsub.PlaceRetry {
						alone[o.Msg.ID] = true
					}
					return outStore
				},
				record: func(_ *tapSource, r *pubsub.Record) recordFate {
					if alone[r.Msg.ID] {
						r.Token.Lane += beside
					}
					return recordKeep
				},
				settle: func(_ *tapSource, x *pubsub.Settlement) bool {
					x.Token.Lane %= beside
					return true
				},
				renew: func(r *pubsub.Renewal) bool {
					r.Token.Lane %= beside
					return true
				},
			}
		}},
		{"knows no tokens of replays", "Faults/CopyConfirmationLost", func() *mutation { return forgetsTokens(pubsub.PlaceRetry) }},
		{"knows no tokens of dead letters", "Faults/CopyConfirmationLost", func() *mutation { return forgetsTokens(pubsub.PlaceDead) }},
		{"gives every member of an exclusive group messages", "DeadLetters/ReplayTakesTurns", sharesKeys},
		{"forgets every dead letter without payload", "DeadLetters/PointsAtSource", func() *mutation {
			return &mutation{out: func(o *pubsub.Out) outFate {
				if o.To.Kind == pubsub.PlaceDead && len(o.Msg.Payload) == 0 {
					return outLose
				}
				return outStore
			}}
		}},
		{"finds whatever it is to verify", "DeadLetters/TargetMissing", func() *mutation {
			var mu sync.Mutex
			verifies := false
			return &mutation{
				ensure: func(_ *pubsub.Topology, m *pubsub.Manage) {
					mu.Lock()
					defer mu.Unlock()
					verifies = *m == pubsub.Verify
				},
				ensured: func(err error) error {
					mu.Lock()
					defer mu.Unlock()
					if verifies {
						return nil
					}
					return err
				},
			}
		}},
		{"knows no tokens of dead letters", "DeadLetters/KilledBeforeAck", func() *mutation { return forgetsTokens(pubsub.PlaceDead) }},
		{"forgets every 4th dead letter", "DeadLetters/KilledBeforeAck", func() *mutation { return losesDead(4) }},
		{"cuts the payload of every 5th message that is sent to a group alone", "DeadLetters/ReplayRestores", func() *mutation {
			return spoilsReplays(5, func(m *pubsub.Message) { m.Payload = m.Payload[:len(m.Payload)/2] })
		}},
		{"loses the first header of every 7th message that is sent to a group alone", "DeadLetters/ReplayRestores", func() *mutation {
			return spoilsReplays(7, func(m *pubsub.Message) { m.Headers = m.Headers[min(1, len(m.Headers)):] })
		}},
		{"sends what is for a group alone to the topic", "DeadLetters/ReplayRestores", func() *mutation {
			n := 0
			return &mutation{out: func(o *pubsub.Out) outFate {
				if o.To.Kind == pubsub.PlaceRetry {
					if n++; n > 3 {
						o.To = pubsub.Place{Topic: o.To.Topic}
					}
				}
				return outStore
			}}
		}},
		{"knows no tokens of replays", "DeadLetters/ReplayResumes", func() *mutation { return forgetsTokens(pubsub.PlaceRetry) }},
		{"loses every 100th message that is sent to a group alone", "DeadLetters/ReplayResumes", func() *mutation {
			strike := every(100)
			return &mutation{out: func(o *pubsub.Out) outFate {
				if o.To.Kind == pubsub.PlaceRetry && strike() {
					return outLose
				}
				return outStore
			}}
		}},
		{"takes a topic with other settings for the one that is asked for", "Groups/TopicDisagrees", func() *mutation {
			known := map[string]bool{}
			return &mutation{ensure: func(t *pubsub.Topology, _ *pubsub.Manage) {
				t.Topics = slices.Clone(t.Topics)
				for i, spec := range t.Topics {
					if known[spec.Name] {
						t.Topics[i] = pubsub.TopicSpec{Name: spec.Name}
					}
					known[spec.Name] = true
				}
			}}
		}},
		{"browses one partition after the other", "Replay/BrowseOldestFirst", func() *mutation {
			return &mutation{browse: func(_ pubsub.Place, all iter.Seq2[pubsub.Record, error]) iter.Seq2[pubsub.Record, error] {
				return func(yield func(pubsub.Record, error) bool) {
					byKey := map[string][]pubsub.Record{}
					var keys []string
					for r, err := range all {
						if err != nil {
							yield(r, err)
							return
						}
						if byKey[r.Msg.Key] == nil {
							keys = append(keys, r.Msg.Key)
						}
						byKey[r.Msg.Key] = append(byKey[r.Msg.Key], r)
					}
					for _, key := range keys {
						for _, r := range byKey[key] {
							if !yield(r, nil) {
								return
							}
						}
					}
				}
			}}
		}},
	}
}

// spoilsReplays changes every n-th message that is sent to a group alone.
func spoilsReplays(n int, spoil func(m *pubsub.Message)) *mutation {
	sent := 0
	return &mutation{out: func(o *pubsub.Out) outFate {
		if o.To.Kind == pubsub.PlaceRetry {
			if sent++; sent%n == 0 {
				edit(o, spoil)
			}
		}
		return outStore
	}}
}

// forgetsTokens stores what is sent again to such places once more.
func forgetsTokens(kind pubsub.PlaceKind) *mutation {
	return &mutation{out: func(o *pubsub.Out) outFate {
		if o.To.Kind == kind {
			o.Dedup, o.Again = pubsub.Dedup{}, false
		}
		return outStore
	}}
}
