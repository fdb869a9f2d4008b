package nats

import (
	"context"
	"errors"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Topics implements pubsub.Lister: the subjects of the stream. Where somebody has made it with wildcards each subject is a topic: those that have messages are named.
func (d *driver) Topics(ctx context.Context) ([]string, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	if _, err := d.connected(ctx); err != nil {
		return nil, err
	}
	info, err := d.stream(ctx, d.names.stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []string
	for _, subject := range info.Config.Subjects {
		switch {
		case strings.HasPrefix(subject, lanePrefix):
			continue // partitions of what is named beside it
		case !pubsub.IsPattern(subject):
			all = append(all, subject)
			continue
		}
		s, err := d.now().js.Stream(ctx, d.names.stream)
		if err != nil {
			return nil, err
		}
		with, err := again(ctx, "subjects of the stream", func(ctx context.Context) (*jetstream.StreamInfo, error) {
			return s.Info(ctx, jetstream.WithSubjectFilter(subject))
		})
		if err != nil {
			return nil, err
		}
		for name := range with.State.Subjects {
			all = append(all, topicOf(name))
		}
	}
	return all, nil
}
