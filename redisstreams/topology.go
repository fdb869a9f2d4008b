package redisstreams

import (
	"context"
	"strconv"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Ensure implements pubsub.Driver.
func (d *driver) Ensure(ctx context.Context, t pubsub.Topology, m pubsub.Manage) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	for _, spec := range t.Topics {
		if _, err := d.ensureTopic(ctx, spec, m); err != nil {
			return err
		}
	}
	for _, g := range t.Groups {
		spec := pubsub.SourceSpec{From: pubsub.Place{Topic: g.Topic, Group: g.Group}, Start: g.Start, Order: g.Order, AckWait: g.AckWait, Manage: m}
		if _, err := d.ensureGroup(ctx, spec); err != nil {
			return err
		}
	}
	return nil
}

// A topicInfo is what the server knows of a topic.
type topicInfo struct {
	there      bool
	partitions int
	retention  time.Duration
}

// The fields of a topic's settings.
const (
	setPartitions = "partitions"
	setRetention  = "retention" // in milliseconds
)

// mostRemembered is for how many seconds a server remembers ids at most.
const mostRemembered = 24 * 60 * 60

// lookup reads the settings of a topic, without making anything.
func (d *driver) lookup(ctx context.Context, topic string) (topicInfo, error) {
	return d.topic(ctx, topic, 0, "0")
}

func (d *driver) topic(ctx context.Context, topic string, lane int32, args ...any) (t topicInfo, err error) {
	r, err := d.run(ctx, topicScript, []string{streamKey(topic, lane), topicKey("topic", topic, lane)}, args...)
	if err != nil {
		return t, err
	}
	r.list()
	t.there = r.number() == 1
	set := r.table()
	t.partitions = max(int(number(set[setPartitions])), 1)
	t.retention = time.Duration(number(set[setRetention])) * time.Millisecond
	return t, r.err
}

// ensureTopic makes a topic, or checks the one that is there.
func (d *driver) ensureTopic(ctx context.Context, spec pubsub.TopicSpec, m pubsub.Manage) (t topicInfo, err error) {
	switch {
	case spec.Replicas != 0:
		return t, says(pubsub.ErrUnsupported, "TopicSpec.Replicas: how many there are is a matter of the servers")
	case spec.MaxBytes != 0:
		return t, says(pubsub.ErrUnsupported, "TopicSpec.MaxBytes: Redis knows the size of no stream")
	}
	args := []any{"0", 0}
	if m == pubsub.Create {
		retention := spec.Retention
		if retention == 0 {
			retention = d.cfg.Retention
		}
		args = []any{"1", min(max(int(d.cfg.Dedup.Seconds()), 1), mostRemembered), setPartitions, max(spec.Partitions, 1), setRetention, retention.Milliseconds()}
	}
	if t, err = d.topic(ctx, spec.Name, 0, args...); err != nil {
		return t, err
	}
	if !t.there && m != pubsub.Create {
		return t, says(pubsub.ErrNotFound, "there is no topic %q", spec.Name)
	}
	if !t.there { // it was made, so it has what was asked for
		if t, err = d.lookup(ctx, spec.Name); err != nil {
			return t, err
		}
	}
	for lane := int32(1); lane < int32(t.partitions); lane++ { // also those that somebody did not come to make
		part, err := d.topic(ctx, spec.Name, lane, args[:2]...)
		if err != nil {
			return t, err
		}
		if !part.there && m != pubsub.Create {
			return t, says(pubsub.ErrNotFound, "partition %d of topic %q is missing", lane, spec.Name)
		}
	}
	switch {
	case spec.Partitions != 0 && spec.Partitions != t.partitions:
		return t, says(pubsub.ErrConflict, "topic %q has %d partitions, not %d", spec.Name, t.partitions, spec.Partitions)
	case spec.Retention != 0 && spec.Retention != t.retention:
		return t, says(pubsub.ErrConflict, "topic %q keeps messages for %v, not %v", spec.Name, t.retention, spec.Retention)
	}
	return t, nil
}

// ensureGroup makes what a group needs, or checks what is there, and returns its topic.
func (d *driver) ensureGroup(ctx context.Context, spec pubsub.SourceSpec) (t topicInfo, err error) {
	p := spec.From
	if t, err = d.ensureTopic(ctx, pubsub.TopicSpec{Name: p.Topic}, spec.Manage); err != nil {
		return t, err
	}
	for lane := range int32(t.partitions) {
		keys := []string{streamKey(p.Topic, lane), groupKey("group", p, lane), groupKey("retry", p, lane), groupKey("dead", p, lane)}
		if lane == 0 {
			keys = append(keys, groupKey("quarantine", p, lane), groupKey("state", p, lane))
		}
		r, err := d.run(ctx, groupScript, keys,
			flag(spec.Manage == pubsub.Create), p.Group, startID(spec.Start, lane), spec.AckWait.Milliseconds(), flag(spec.Order.Exclusive()))
		if err != nil {
			return t, err
		}
		n := r.list()
		missing := string(r.text())
		switch {
		case r.err != nil:
			return t, r.err
		case missing != "":
			return t, says(pubsub.ErrNotFound, "there is no %s: group %q of topic %q, partition %d", missing, p.Group, p.Topic, lane)
		case n != 3:
			return t, errGarbled
		}
		ackWait, exclusive := time.Duration(number(string(r.text())))*time.Millisecond, string(r.text()) == "1"
		if ackWait != spec.AckWait.Truncate(time.Millisecond) || exclusive != spec.Order.Exclusive() {
			return t, says(pubsub.ErrConflict, "group %q of %q has an ack wait of %v and exclusive=%v, not %v and %v; all its members must agree",
				p.Group, p.Topic, ackWait, exclusive, spec.AckWait, spec.Order.Exclusive())
		}
	}
	return t, nil
}

// flag is how scripts are told of a condition.
func flag(on bool) string { return strconv.Itoa(map[bool]int{true: 1}[on]) }
