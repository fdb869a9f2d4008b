package conformance

import "github.com/omnibus-go/omnibus/pubsub"

// publishMutants break what happens between a publisher and the broker.
func publishMutants() []Mutant {
	return []Mutant{
		{"forgets every 100th message that it confirms", "Delivery/ConfirmedIsReceived", func() *mutation { return loses(100) }},
		{"loses every 100th message on its way out", "Delivery/ConfirmedIsReceived", func() *mutation { return shows(recordLose, 100) }},
		{"says refused to every 100th message that it stores", "Delivery/BatchResults", func() *mutation {
			strike := every(100)
			return &mutation{out: func(*pubsub.Out) outFate {
				if strike() {
					return outRefuse
				}
				return outStore
			}}
		}},
		{"says stored to what the broker refused", "Delivery/RefusedIsReported", acceptsRefusals},
		{"says stored to what nobody would receive", "Delivery/Unroutable", acceptsRefusals},
		{"stores every 100th message under another topic", "Delivery/TopicIsolation", func() *mutation {
			strike := every(100)
			before := ""
			return &mutation{out: func(o *pubsub.Out) outFate {
				topic := o.To.Topic
				if strike() && before != "" {
					o.To.Topic = before
				}
				if topic != o.To.Topic || before == "" {
					before = topic
				}
				return outStore
			}}
		}},
		{"confirms before the broker has answered", "Delivery/BlackHole", func() *mutation {
			n := 0
			return &mutation{out: func(*pubsub.Out) outFate {
				if n++; n > sound {
					return outEarly
				}
				return outStore
			}}
		}},
		{"sends by itself what had no answer", "Delivery/NotSentAgainBehindLater", func() *mutation {
			bySeq := map[uint64]pubsub.Out{}
			var lost []pubsub.Out
			return &mutation{
				out: func(o *pubsub.Out) outFate { bySeq[o.Seq] = *o; return outStore },
				result: func(r *pubsub.Result) {
					if r.Fate == pubsub.FateUnknown {
						lost = append(lost, bySeq[r.Seq])
					}
				},
				more: func([]pubsub.Out) []pubsub.Out {
					again := lost
					lost = nil
					return again
				},
			}
		}},
		{"keeps the publisher's buffer, which is overwritten before every 100th message leaves", "Delivery/BuffersMayBeReused", func() *mutation {
			strike := every(100)
			return &mutation{out: func(o *pubsub.Out) outFate {
				if strike() {
					edit(o, func(m *pubsub.Message) { clear(m.Payload) })
				}
				return outStore
			}}
		}},
		{"claims the durability of a disk, whatever the server says", "Delivery/OpenBelowProcess", func() *mutation {
			return &mutation{capabilities: func(c *pubsub.Capabilities) { c.Durability = pubsub.Disk }}
		}},
		{"claims to survive a crash, and forgets every 100th message in it", "Delivery/SurvivesCrash", func() *mutation {
			strike := every(100)
			crashed := false
			return &mutation{
				capabilities: func(c *pubsub.Capabilities) { c.Durability = pubsub.Process },
				ping:         func(err error) error { crashed = crashed || err != nil; return err },
				record: func(*tapSource, *pubsub.Record) recordFate {
					if strike() && crashed {
						return recordLose
					}
					return recordKeep
				},
			}
		}},
		{"forgets the token of every 100th message", "Delivery/DedupByID", func() *mutation {
			strike := every(100)
			return &mutation{out: func(o *pubsub.Out) outFate {
				if strike() {
					o.Dedup, o.Again = pubsub.Dedup{}, false
				}
				return outStore
			}}
		}},
	}
}

func acceptsRefusals() *mutation {
	return &mutation{result: func(r *pubsub.Result) {
		if r.Fate == pubsub.FateRefused {
			r.Fate, r.Err = pubsub.FateAccepted, nil
		}
	}}
}
