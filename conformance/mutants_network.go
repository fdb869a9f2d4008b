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
			return claimsReplicas(loses(100))
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

func claimsReplicas(m *mutation) *mutation {
	m.capabilities = func(c *pubsub.Capabilities) { c.Durability = pubsub.Replicated }
	return m
}
