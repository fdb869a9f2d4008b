package conformance

import "github.com/omnibus-go/omnibus/pubsub"

// networkMutants believe a network, or a cluster, more than they may.
func networkMutants() []Mutant {
	return []Mutant{
		{"confirms every 4th message before the broker does", "Faults/HalfOpen", func() *mutation { return confirmsEarly(4) }},
		{"says that all is well without asking", "Faults/HalfOpen", func() *mutation {
			return &mutation{ping: func(error) error { return nil }}
		}},
		{"loses every 90th message of sessions that follow another", "Faults/HalfOpen", func() *mutation { return laterSessions(recordLose) }},
		{"claims to be replicated, and confirms every 4th message before its followers have it", "Delivery/Replicated", func() *mutation {
			return claimsReplicas(confirmsEarly(4))
		}},
		{"claims to be replicated, and loses every 100th message with its leader", "Delivery/Replicated", func() *mutation {
			return claimsReplicas(losesWithLeader(100))
		}},
	}
}

func confirmsEarly(n int) *mutation {
	strike := every(n)
	return &mutation{out: func(*pubsub.Out) outFate {
		if strike() {
			return outEarly
		}
		return outStore
	}}
}

// losesWithLeader stores everything, and shows it, until the leader is wiped: that alone had each n-th message.
func losesWithLeader(n int) *mutation {
	strike, alone := every(n), map[string]bool{}
	m := &mutation{}
	m.out = func(o *pubsub.Out) outFate {
		if strike() && !m.wiped.Load() {
			alone[o.Msg.ID] = true
		}
		return outStore
	}
	m.record = func(_ *tapSource, r *pubsub.Record) recordFate {
		if m.wiped.Load() && alone[r.Msg.ID] {
			return recordLose
		}
		return recordKeep
	}
	return m
}

func claimsReplicas(m *mutation) *mutation {
	m.capabilities = func(c *pubsub.Capabilities) { c.Durability = pubsub.Replicated }
	return m
}
