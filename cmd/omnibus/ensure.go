package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/omnibus-go/omnibus/pubsub"
)

type ensureFlags struct {
	spec   pubsub.TopicSpec
	groups []string
	from   string
	order  string
	wait   time.Duration
	verify bool
}

func (a *app) ensureCommand() *cobra.Command {
	var f ensureFlags
	c := &cobra.Command{
		Use:   "ensure [TOPIC]",
		Short: "Make topics and groups, or check that they agree",
		Long: `ensure makes the topic and its groups where they are missing. What exists is not changed: where its settings are others, that is a conflict. A
group that exists before the first message misses none. With --verify nothing is made: what is missing is not found.

Without TOPIC it makes what the configuration names: its topics, and the groups of its subscriptions. TOPIC may be a pattern where the broker has
patterns, for groups only.`,
		Example: `  omnibus ensure
  omnibus ensure orders --group billing --group audit
  omnibus ensure orders --group billing --verify --json`,
		Args: args(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				t, err := a.topology(args[0], f)
				if err != nil {
					return usageOf(c, err)
				}
				return a.ensure(c, t, f.verify)
			}
			if changedBut(c, "verify") {
				return usageOf(c, errors.New("settings are of a TOPIC"))
			}
			t, err := a.topologyOfConfig()
			if err != nil {
				return err
			}
			if len(t.Topics)+len(t.Groups) == 0 {
				return needConfig(c, "which topic?")
			}
			return a.ensure(c, t, f.verify)
		},
	}
	fs := c.Flags()
	fs.IntVar(&f.spec.Partitions, "partitions", 0, "of the topic (default: that of the broker, or what it has)")
	fs.IntVar(&f.spec.Replicas, "replicas", 0, "of the topic (default: the same)")
	fs.DurationVar(&f.spec.Retention, "retention", 0, "how long the topic keeps messages (default: the same)")
	fs.Int64Var(&f.spec.MaxBytes, "max-bytes", 0, "how much the topic keeps (default: the same)")
	fs.StringArrayVarP(&f.groups, "group", "g", nil, "a group of the topic; may be repeated")
	fs.StringVar(&f.from, "from", "", "where new groups begin, see sub (default: now)")
	fs.StringVar(&f.order, "order", "", "of the groups: "+orderNames+" (default: key)")
	fs.DurationVar(&f.wait, "ack-wait", 0, "of the groups: how long a dead member keeps a message (default: 30s)")
	fs.BoolVar(&f.verify, "verify", false, "make nothing, only check")
	return c
}

// changedBut says whether the command line has a flag of this command besides that one.
func changedBut(c *cobra.Command, but string) (others bool) {
	c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { others = others || f.Changed && f.Name != but })
	return others
}

// topology is what the command line asks for.
func (a *app) topology(topic string, f ensureFlags) (pubsub.Topology, error) {
	var t pubsub.Topology
	start, err := a.parseFrom(f.from)
	if err != nil {
		return t, err
	}
	order, err := parseOrder(f.order)
	if err != nil {
		return t, err
	}
	for _, g := range f.groups {
		t.Groups = append(t.Groups, pubsub.Subscription{Topic: topic, Group: g, Start: start, Order: order, AckWait: f.wait})
	}
	if pubsub.IsPattern(topic) {
		if len(t.Groups) == 0 {
			return t, errors.New("a pattern is no topic: name a --group")
		}
		return t, nil
	}
	f.spec.Name = topic
	t.Topics = []pubsub.TopicSpec{f.spec}
	return t, nil
}

// ensured is what ensure has found or made.
type ensured struct {
	Topics   []string   `json:"topics"`
	Groups   []groupRef `json:"groups"`
	Verified bool       `json:"verified"` // nothing was made
}

type groupRef struct {
	Topic string `json:"topic"`
	Group string `json:"group"`
}

func (a *app) ensure(c *cobra.Command, t pubsub.Topology, verify bool) error {
	return a.opened(c, func(o *pubsub.Options) {
		if !verify {
			o.Manage = pubsub.Create
		}
	}, func(ctx context.Context, b *pubsub.Broker) error {
		ctx, cancel := a.within(ctx)
		defer cancel()
		if caps := b.Capabilities(); !caps.Redelivery {
			for i := range t.Groups {
				t.Groups[i].DeadLetter = pubsub.DeadLetter{Drop: true} // it is not made here
			}
		}
		if err := b.Ensure(ctx, t); err != nil {
			return err
		}
		done := ensured{Topics: []string{}, Groups: []groupRef{}, Verified: verify}
		var parts []string
		for _, s := range t.Topics {
			done.Topics = append(done.Topics, s.Name)
			parts = append(parts, "topic "+s.Name)
		}
		for _, s := range t.Groups {
			done.Groups = append(done.Groups, groupRef{s.Topic, s.Group})
			parts = append(parts, fmt.Sprintf("group %s of %s", s.Group, s.Topic))
		}
		if a.out.json {
			return a.out.value(done)
		}
		return a.out.printf("%s %s\n", a.out.paint(green, "there:"), strings.Join(parts, ", "))
	})
}
