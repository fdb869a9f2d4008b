package kafka

import (
	"context"
	"fmt"
	"strconv"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/pubsub"
)

// keeps checks whether a topic with these settings keeps what it confirms as we declare.
func (d *driver) keeps(name string, info topicInfo, settings map[string]string) error {
	if d.caps.Durability < pubsub.Replicated {
		return nil
	}
	replicas := info.replicas()
	if insync, err := strconv.Atoi(settings["min.insync.replicas"]); replicas < 3 || err == nil && insync < 2 {
		return says(pubsub.ErrConflict, "topic %q has %d replicas and min.insync.replicas=%d, so that it can lose what it has confirmed: give it 3 and 2, or open with ?durability=process",
			name, replicas, insync)
	}
	d.mu.Lock()
	d.sound[name] = info.id
	d.mu.Unlock()
	return nil
}

// trusted checks a topic that others may have made, once.
func (d *driver) trusted(ctx context.Context, name string, info topicInfo) error {
	if d.caps.Durability < pubsub.Replicated {
		return nil
	}
	d.mu.Lock()
	id, sound := d.sound[name]
	d.mu.Unlock()
	if sound && id == info.id {
		return nil
	}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	settings, err := d.settings(ctx, sarama.TopicResource, name)
	if err != nil {
		return fmt.Errorf("reading the settings of topic %q, which tell how durable it is (?durability=process does without): %w", name, err)
	}
	return d.keeps(name, info, settings)
}
