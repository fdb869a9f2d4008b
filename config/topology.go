package config

import "github.com/omnibus-go/omnibus/pubsub"

// Topology is what the service needs to exist at the broker, which Open ensures: its own topics, and the groups of its subscriptions. For tools that
// have the file but not the program.
func (c *Config) Topology() pubsub.Topology {
	t := pubsub.Topology{Topics: append([]pubsub.TopicSpec(nil), c.plan.topics...)}
	for _, name := range c.Subscriptions() {
		if s := c.plan.subscriptions[name]; s.Group != pubsub.Broadcast {
			t.Groups = append(t.Groups, s)
		}
	}
	return t
}
