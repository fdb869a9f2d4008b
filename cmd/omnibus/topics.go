package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/omnibus-go/omnibus/pubsub"
)

func (a *app) topicsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "topics TOPIC...",
		Short: "Tell which topics exist",
		Long: `topics asks the broker for each of the topics whether it exists. Brokers differ in what they could list, and some can list nothing, so it lists
what is asked for.`,
		Example: "  omnibus topics orders payments\n  omnibus topics orders --json",
		Args:    args(1, -1),
		RunE: func(c *cobra.Command, args []string) error {
			topics := make([]pubsub.TopicSpec, 0, len(args))
			for _, name := range args {
				topics = append(topics, pubsub.TopicSpec{Name: name})
			}
			return a.opened(c, nil, func(ctx context.Context, b *pubsub.Broker) error {
				ctx, cancel := a.within(ctx)
				defer cancel()
				return a.topics(ctx, b, topics)
			})
		},
	}
}

// A topic is a line of topics.
type topic struct {
	Topic  string `json:"topic"`
	Status string `json:"status"` // there, missing, differs
	Why    string `json:"why,omitempty"`
}

func (a *app) topics(ctx context.Context, b *pubsub.Broker, specs []pubsub.TopicSpec) error {
	var rows [][]string
	for _, s := range specs {
		status, why, err := statusOf(b.Ensure(ctx, pubsub.Topology{Topics: []pubsub.TopicSpec{s}}))
		if err != nil {
			return err
		}
		t := topic{s.Name, status, why}
		if a.out.json {
			if err := a.out.value(t); err != nil {
				return err
			}
		}
		rows = append(rows, []string{t.Topic, t.Status, t.Why})
	}
	if a.out.json {
		return nil
	}
	return a.out.table([]string{"topic", "status", ""}, rows)
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
