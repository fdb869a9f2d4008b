package conformance

import (
	"context"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// otherMutants break dead letters, time, replay and what can be observed.
func otherMutants() []Mutant {
	return []Mutant{
		{"loses the first header of what it stores as a dead letter", "DeadLetters/Intact", func() *mutation {
			return &mutation{out: func(o *pubsub.Out) outFate {
				if o.To.Kind == pubsub.PlaceDead {
					edit(o, func(m *pubsub.Message) { m.Headers = m.Headers[1:] })
				}
				return outStore
			}}
		}},
		{"says stored to dead letters that are denied", "DeadLetters/TargetDenied", acceptsRefusals},
		{"says stored to dead letters that cannot be reached", "DeadLetters/TargetDown", acceptsRefusals},
		{"says stored to dead letters that it has no room for", "DeadLetters/TargetFull", acceptsRefusals},
		{"says stored to dead letters that are too large", "DeadLetters/TargetTooSmall", acceptsRefusals},
		{"drops every 4th message that it cannot decode", "DeadLetters/Undecodable", func() *mutation {
			bad := 0
			return &mutation{record: func(_ *tapSource, r *pubsub.Record) recordFate {
				if r.Bad == nil {
					return recordKeep
				}
				if bad++; bad%4 == 0 {
					return recordLose
				}
				return recordKeep
			}}
		}},
		{"forgets every 5th dead letter that goes to another topic", "DeadLetters/OtherTopic", func() *mutation {
			n := 0
			return &mutation{out: func(o *pubsub.Out) outFate {
				if o.Msg.Headers.Get("omnibus-dlq-id") == "" {
					return outStore
				}
				if n++; n%5 == 0 {
					return outLose
				}
				return outStore
			}}
		}},
		{"forgets every 6th dead letter", "DeadLetters/ToldWhenStored", func() *mutation { return losesDead(6) }},
		{"forgets every 3rd dead letter", "DeadLetters/Expected", func() *mutation { return losesDead(3) }},
		{"forgets dead letters over 500 kB", "DeadLetters/Largest", losesLargeDead},
		{"forgets dead letters over 500 kB", "DeadLetters/UndecodableLargest", losesLargeDead},
		{"claims half of its headroom for users", "DeadLetters/Headroom", func() *mutation {
			return &mutation{capabilities: func(c *pubsub.Capabilities) { c.MaxMessage += pubsub.Headroom / 2 }}
		}},
		{"trims dead letters as it does their topic", "DeadLetters/BrowsingTakesNothing", func() *mutation {
			var n atomic.Int64 // browses go on while messages are sent
			return &mutation{
				out: func(*pubsub.Out) outFate { n.Add(1); return outStore },
				browse: func(_ pubsub.Place, all iter.Seq2[pubsub.Record, error]) iter.Seq2[pubsub.Record, error] {
					return func(yield func(pubsub.Record, error) bool) {
						skip := (n.Load() - 100) / 100
						for r, err := range all {
							if skip--; skip < 0 && !yield(r, err) {
								return
							}
						}
					}
				},
			}
		}},
		{"takes the first dead letter away at every 50th browse", "DeadLetters/BrowsingTakesNothing", func() *mutation {
			n, taken := 0, 0
			return &mutation{browse: func(p pubsub.Place, all iter.Seq2[pubsub.Record, error]) iter.Seq2[pubsub.Record, error] {
				return func(yield func(pubsub.Record, error) bool) {
					if n++; n%50 == 0 {
						taken++
					}
					skip := taken
					for r, err := range all {
						if skip--; skip < 0 && !yield(r, err) {
							return
						}
					}
				}
			}}
		}},
		{"delivers every 3rd delayed message at once", "Time/Delay", func() *mutation {
			n := 0
			return &mutation{out: func(o *pubsub.Out) outFate {
				if o.Msg.Delay > 0 {
					if n++; n%3 == 0 {
						edit(o, func(m *pubsub.Message) { m.Delay = 0 })
					}
				}
				return outStore
			}}
		}},
		{"loses the engine's headers of every 100th message", "Time/TTL", func() *mutation {
			strike := every(100)
			return &mutation{out: func(o *pubsub.Out) outFate {
				if strike() {
					edit(o, func(m *pubsub.Message) {
						m.Headers = slices.DeleteFunc(m.Headers, func(h pubsub.Header) bool { return strings.HasPrefix(h.Name, "omnibus-") })
					})
				}
				return outStore
			}}
		}},
		{"forgets the priority of every 10th message", "Time/Priority", func() *mutation {
			strike := every(10)
			sent := map[string]uint8{}
			return &mutation{
				out: func(o *pubsub.Out) outFate {
					if strike() {
						sent[o.Msg.ID] = o.Msg.Priority
						edit(o, func(m *pubsub.Message) { m.Priority = 0 })
					}
					return outStore
				},
				record: func(_ *tapSource, r *pubsub.Record) recordFate {
					if was, ok := sent[r.Msg.ID]; ok {
						m := *r.Msg
						m.Priority = was
						r.Msg = &m
					}
					return recordKeep
				},
			}
		}},
		{"leaves a group that is to be moved to the beginning where it is", "Replay/Earliest", func() *mutation {
			return &mutation{seek: func(context.Context, pubsub.Seeker, string, string, pubsub.Start) error { return nil }}
		}},
		{"moves a group a minute before the time", "Replay/Time", func() *mutation {
			return &mutation{seek: func(ctx context.Context, below pubsub.Seeker, topic, group string, to pubsub.Start) error {
				if kind, t, _ := to.Parts(); kind == pubsub.StartTime {
					to = pubsub.FromTime(t.Add(-time.Minute))
				}
				return below.Seek(ctx, topic, group, to)
			}}
		}},
		{"moves a group to the beginning instead of the position", "Replay/Position", func() *mutation {
			return &mutation{seek: func(ctx context.Context, below pubsub.Seeker, topic, group string, _ pubsub.Start) error {
				return below.Seek(ctx, topic, group, pubsub.FromEarliest())
			}}
		}},
		{"moves all groups of the topic", "Replay/OthersUntouched", func() *mutation {
			groups := map[string]bool{}
			return &mutation{
				ensure: func(t *pubsub.Topology, _ *pubsub.Manage) {
					for _, g := range t.Groups {
						groups[g.Group] = true
					}
				},
				seek: func(ctx context.Context, below pubsub.Seeker, topic, _ string, to pubsub.Start) error {
					for g := range groups {
						if err := below.Seek(ctx, topic, g, to); err != nil {
							return err
						}
					}
					return nil
				},
			}
		}},
		{"shows every 100th message twice", "Observation/SeenOnce", func() *mutation { return shows(recordTwice, 100) }},
		{"counts one message too few", "Observation/Lag", func() *mutation {
			return &mutation{lag: func(l *pubsub.Lag) {
				if l.Messages > 0 {
					l.Messages--
				}
			}}
		}},
	}
}

// losesLargeDead confirms dead letters that are large without storing them.
func losesLargeDead() *mutation {
	return &mutation{out: func(o *pubsub.Out) outFate {
		if o.To.Kind == pubsub.PlaceDead && o.Msg.Size() > 500_000 {
			return outLose
		}
		return outStore
	}}
}
