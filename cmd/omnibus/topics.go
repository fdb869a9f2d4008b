package main

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/omnibus-go/omnibus/pubsub"
)

func (a *app) topicsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "topics [TOPIC...]",
		Short: "Tell which topics and groups exist",
		Long: `topics asks the broker for each topic whether it exists: those that are named, else all that the configuration names, with the groups of their
subscriptions and how far these are behind, and after them all others that the broker has, without what groups have for themselves, such as retries and dead letters.
RabbitMQ and NATS without JetStream can tell no client what they have: there the others are not listed.

"differs" is a topic or a group that exists with other settings than the configuration has.`,
		Example: "  omnibus topics\n  omnibus topics orders payments --json",
		Args:    args(0, -1),
		RunE: func(c *cobra.Command, args []string) error {
			t, err := a.topologyOfConfig()
			if err != nil {
				return err
			}
			if len(args) > 0 {
				t = only(t, args)
			}
			return a.opened(c, nil, func(ctx context.Context, b *pubsub.Broker) error {
				var others []string
				if len(args) == 0 {
					others, err = a.topicsThere(ctx, b)
					switch none := len(t.Topics)+len(t.Groups) == 0; {
					case errors.Is(err, pubsub.ErrUnsupported) && none:
						return needConfig(c, "which topics? This broker cannot tell")
					case err != nil && none:
						return err
					case err != nil && !errors.Is(err, pubsub.ErrUnsupported):
						a.out.notef("others than those of the configuration are not listed: %v", err)
					}
				}
				ctx, cancel := a.within(ctx)
				defer cancel()
				all, err := topicsOf(ctx, b, t)
				if err != nil {
					return err
				}
				for _, name := range others {
					if !slices.ContainsFunc(all, func(t topic) bool { return t.Topic == name }) {
						all = append(all, topic{Topic: name, Status: "there"})
					}
				}
				return a.showTopics(all)
			})
		},
	}
}

// topicsThere asks for what the broker has, in a time of its own: Redis looks through all of its keys.
func (a *app) topicsThere(ctx context.Context, b *pubsub.Broker) ([]string, error) {
	ctx, cancel := a.within(ctx)
	defer cancel()
	return b.Topics(ctx)
}

// only is the part of a topology that is about these topics. One that it does not have is asked for without settings.
func only(t pubsub.Topology, names []string) (part pubsub.Topology) {
	for _, name := range names {
		spec := pubsub.TopicSpec{Name: name}
		for _, s := range t.Topics {
			if s.Name == name {
				spec = s
			}
		}
		part.Topics = append(part.Topics, spec)
		for _, g := range t.Groups {
			if g.Topic == name {
				part.Groups = append(part.Groups, g)
			}
		}
	}
	return part
}

// A topic is a line of topics.
type topic struct {
	Topic  string       `json:"topic"`
	Status string       `json:"status,omitempty"` // there, missing, differs; "" = only groups of it were asked for
	Why    string       `json:"why,omitempty"`
	Groups []topicGroup `json:"groups,omitempty"`
}

type topicGroup struct {
	Group  string `json:"group"`
	Status string `json:"status"`
	Why    string `json:"why,omitempty"`
	Lag    *int64 `json:"lag,omitempty"` // absent = unknown
}

func topicsOf(ctx context.Context, b *pubsub.Broker, t pubsub.Topology) ([]topic, error) {
	var all []topic
	find := func(name string) *topic {
		for i := range all {
			if all[i].Topic == name {
				return &all[i]
			}
		}
		all = append(all, topic{Topic: name})
		return &all[len(all)-1]
	}
	for _, s := range t.Topics {
		status, why, err := statusOf(b.Ensure(ctx, pubsub.Topology{Topics: []pubsub.TopicSpec{s}}))
		if err != nil {
			return nil, err
		}
		one := find(s.Name)
		one.Status, one.Why = status, why
	}
	for _, s := range t.Groups {
		status, why, err := statusOf(b.Ensure(ctx, pubsub.Topology{Groups: []pubsub.Subscription{s}}))
		if err != nil {
			return nil, err
		}
		g := topicGroup{Group: s.Group, Status: status, Why: why}
		if status == "there" {
			lag, err := b.Lag(ctx, s.Topic, s.Group)
			switch {
			case errors.Is(err, pubsub.ErrUnsupported):
			case err != nil:
				return nil, err
			case lag.Kind != pubsub.LagUnknown:
				g.Lag = &lag.Messages
			}
		}
		one := find(s.Topic)
		one.Groups = append(one.Groups, g)
	}
	return all, nil
}

func (a *app) showTopics(all []topic) error {
	var rows [][]string
	for _, t := range all {
		if a.out.json {
			if err := a.out.value(t); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, []string{t.Topic, "", t.Status, "", printable(strings.ReplaceAll(t.Why, "\n", " "), false)})
		for _, g := range t.Groups {
			lag := ""
			if g.Lag != nil {
				lag = strconv.FormatInt(*g.Lag, 10)
			}
			rows = append(rows, []string{"", g.Group, g.Status, lag, printable(strings.ReplaceAll(g.Why, "\n", " "), false)})
		}
	}
	if a.out.json {
		return nil
	}
	return a.out.table([]string{"topic", "group", "status", "behind", ""}, rows)
}

// statusOf reads what a check said; an error is one that says nothing about what was looked for.
func statusOf(err error) (status, why string, _ error) {
	switch {
	case err == nil:
		return "there", "", nil
	case errors.Is(err, pubsub.ErrNotFound):
		return "missing", "", nil
	case errors.Is(err, pubsub.ErrConflict):
		return "differs", describe(err).Message, nil
	}
	return "", "", err
}
