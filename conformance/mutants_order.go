package conformance

import (
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// orderMutants break the order of messages, or what goes on beside it.
func orderMutants() []Mutant {
	return []Mutant{
		{"shows every 100th message after the next one of its key", "Order/PerKey", func() *mutation { return shows(recordHold, 100) }},
		{"waits for each settlement before it shows the next message", "Order/KeyWhileRetried", func() *mutation {
			return oneAtATime(0)
		}},
		{"shows every 90th message after the next one", "Order/Strict", func() *mutation { return shows(recordHold, 90) }},
		{"shows nothing while a message waits for its time", "Order/LooseLetsPass", func() *mutation {
			var until time.Time
			return &mutation{
				recvOne: true,
				settle: func(_ *tapSource, x *pubsub.Settlement) bool {
					if x.As == pubsub.SettleRetryIn {
						until = time.Now().Add(x.Delay + 10*time.Millisecond) // then the one that waits comes first
					}
					return true
				},
				recvBlocks: func(s *tapSource) bool {
					s.m.mu.Lock()
					defer s.m.mu.Unlock()
					return time.Now().Before(until)
				},
			}
		}},
		{"swaps neighbours of a key in what it sends, once in 30 messages", "Order/AcrossReconnects", func() *mutation {
			n, due := 0, false
			return &mutation{run: func(run []pubsub.Out) {
				due = due || n/30 < (n+len(run))/30 // until a run has two of a key
				n += len(run)
				for i := 0; due && i < len(run); i++ {
					for j := i + 1; j < len(run); j++ {
						if run[i].Msg.Key == run[j].Msg.Key {
							run[i], run[j] = run[j], run[i]
							due = false
							return
						}
					}
				}
			}}
		}},
		{"gives every member of an exclusive group messages", "Order/StandbyTakesOver", sharesKeys},
		{"gives the messages of a key to any member", "Order/AcrossMembers", sharesKeys},
		{"shows every 100th message after the next one of its key", "Order/AcrossMembers", func() *mutation { return shows(recordHold, 100) }},
		{"lets a later message of a key go first, in sessions that follow another", "Order/Handover", func() *mutation {
			return laterSessions(recordHold)
		}},
		{"shows nothing of any partition while one has a message out", "Order/StalledPartition", func() *mutation {
			return oneAtATime(0)
		}},
		{"acks all before the message that is acked", "Order/OutOfOrderAcks", func() *mutation {
			n := 0
			return &mutation{settle: func(s *tapSource, x *pubsub.Settlement) bool {
				if n++; n <= sound || x.As != pubsub.SettleAck {
					return true
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				var before []pubsub.Settlement
				for t := range s.open {
					if t.Lane == x.Token.Lane && t.A < x.Token.A && !s.acked[t] {
						s.acked[t] = true
						before = append(before, pubsub.Settlement{Token: t, As: pubsub.SettleAck})
					}
				}
				s.ack(before)
				return true
			}}
		}},
	}
}

// sharesKeys lets the members of an ordered group compete.
func sharesKeys() *mutation {
	return &mutation{
		ensure: func(t *pubsub.Topology, _ *pubsub.Manage) {
			for i := range t.Groups {
				t.Groups[i].Order = pubsub.OrderPerMember
			}
		},
		spec: func(s *pubsub.SourceSpec) { s.Order = pubsub.OrderPerMember },
	}
}

// shows does that with every n-th message that it shows.
func shows(what recordFate, n int) *mutation {
	strike := every(n)
	return &mutation{record: func(*tapSource, *pubsub.Record) recordFate {
		if strike() {
			return what
		}
		return recordKeep
	}}
}

// oneAtATime shows nothing while a message has been out for longer than that.
func oneAtATime(longer time.Duration) *mutation {
	shown := map[pubsub.Token]time.Time{}
	n := 0
	return &mutation{
		recvOne: true,
		record: func(_ *tapSource, r *pubsub.Record) recordFate {
			n++
			shown[r.Token] = time.Now()
			return recordKeep
		},
		settle: func(_ *tapSource, x *pubsub.Settlement) bool {
			delete(shown, x.Token)
			return true
		},
		recvBlocks: func(s *tapSource) bool {
			s.m.mu.Lock()
			defer s.m.mu.Unlock()
			for _, at := range shown {
				if n > sound && time.Since(at) >= longer {
					return true
				}
			}
			return false
		},
	}
}

// laterSessions treats every 90th message so, but for those of the first session.
func laterSessions(fate recordFate) *mutation {
	var first *tapSource
	strike := every(90)
	return &mutation{record: func(s *tapSource, _ *pubsub.Record) recordFate {
		if first == nil {
			first = s
		}
		if strike() && s != first {
			return fate
		}
		return recordKeep
	}}
}
