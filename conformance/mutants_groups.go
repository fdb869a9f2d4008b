package conformance

import (
	"strings"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// groupMutants break who gets what, and from where on.
func groupMutants() []Mutant {
	return []Mutant{
		{"shows every 100th message twice", "Groups/MembersShare", func() *mutation { return shows(recordTwice, 100) }},
		{"loses every 100th message for all groups but the first", "Groups/FanOut", func() *mutation {
			first, strike := "", every(100)
			return &mutation{record: func(s *tapSource, _ *pubsub.Record) recordFate {
				if first == "" {
					first = s.spec.From.Group
				}
				if s.spec.From.Group != first && strike() {
					return recordLose
				}
				return recordKeep
			}}
		}},
		{"acks what a leaving member hands back", "Groups/JoinAndLeave", acksReleases},
		{"starts a new group now, whatever it asks for", "Groups/StartEarliest", func() *mutation {
			return startsAt(func(k pubsub.StartKind, s pubsub.Start) pubsub.Start { return pubsub.FromNow() })
		}},
		{"starts a new group a minute before the time that it asks for", "Groups/StartTime", func() *mutation {
			return startsAt(func(k pubsub.StartKind, s pubsub.Start) pubsub.Start {
				if _, t, _ := s.Parts(); k == pubsub.StartTime {
					return pubsub.FromTime(t.Add(-time.Minute))
				}
				return s
			})
		}},
		{"starts a new group that asks for a position at the beginning", "Groups/StartPosition", func() *mutation {
			return startsAt(func(k pubsub.StartKind, s pubsub.Start) pubsub.Start {
				if k == pubsub.StartPosition {
					return pubsub.FromEarliest()
				}
				return s
			})
		}},
		{"starts new groups at the beginning", "Groups/StartsAtCreation", func() *mutation {
			return startsAt(func(pubsub.StartKind, pubsub.Start) pubsub.Start { return pubsub.FromEarliest() })
		}},
		{"begins a broadcast with what is kept", "Groups/BroadcastIsLive", func() *mutation {
			return &mutation{spec: func(s *pubsub.SourceSpec) {
				if s.From.Group == pubsub.Broadcast {
					s.Start = pubsub.FromEarliest()
				}
			}}
		}},
		{"loses every 100th message of a broadcast", "Groups/BroadcastIsLive", func() *mutation { return shows(recordLose, 100) }},
		{"takes * for any number of segments", "Groups/Patterns", func() *mutation {
			return &mutation{spec: func(s *pubsub.SourceSpec) {
				if before, _, ok := strings.Cut(s.From.Topic, ".*"); ok {
					s.From.Topic = before + ".>"
				}
			}}
		}},
		{"keeps dead letters in a topic beside the one they come from", "Groups/PatternsSpareOwnPlaces", func() *mutation {
			return &mutation{
				ensure: func(t *pubsub.Topology, _ *pubsub.Manage) {
					for _, spec := range t.Topics {
						t.Topics = append(t.Topics, pubsub.TopicSpec{Name: spec.Name + ".dead"})
					}
				},
				more: func(run []pubsub.Out) (copies []pubsub.Out) {
					for _, o := range run {
						if o.To.Kind == pubsub.PlaceDead {
							o.To = pubsub.Place{Topic: o.To.Topic + ".dead"}
							copies = append(copies, o)
						}
					}
					return copies
				},
			}
		}},
		{"makes a group only when its first member comes", "Groups/ProvisionedKeeps", func() *mutation {
			return &mutation{ensure: func(t *pubsub.Topology, _ *pubsub.Manage) { t.Groups = nil }}
		}},
		{"lets members join with any ack wait", "Groups/DisagreeingMember", func() *mutation {
			waits := map[pubsub.Place]time.Duration{}
			return &mutation{spec: func(s *pubsub.SourceSpec) {
				if w, ok := waits[s.From]; ok {
					s.AckWait = w
				}
				waits[s.From] = s.AckWait
			}}
		}},
		{"makes what is to be verified only", "Groups/VerifyAndOff", func() *mutation {
			return &mutation{ensure: func(_ *pubsub.Topology, m *pubsub.Manage) { *m = pubsub.Create }}
		}},
	}
}

// startsAt changes where new groups begin.
func startsAt(f func(k pubsub.StartKind, s pubsub.Start) pubsub.Start) *mutation {
	change := func(s pubsub.Start) pubsub.Start {
		kind, _, _ := s.Parts()
		return f(kind, s)
	}
	return &mutation{
		ensure: func(t *pubsub.Topology, _ *pubsub.Manage) {
			for i := range t.Groups {
				t.Groups[i].Start = change(t.Groups[i].Start)
			}
		},
		spec: func(s *pubsub.SourceSpec) {
			if s.From.Kind == pubsub.PlaceMain {
				s.Start = change(s.Start)
			}
		},
	}
}

// acksReleases acks messages that are handed back.
func acksReleases() *mutation {
	n := 0
	return &mutation{settle: func(_ *tapSource, x *pubsub.Settlement) bool {
		if n++; n > sound && x.As == pubsub.SettleRelease {
			x.As = pubsub.SettleAck
		}
		return true
	}}
}
