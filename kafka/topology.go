package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A topicInfo is what a topic was like when it was seen last.
type topicInfo struct {
	id    sarama.Uuid
	parts []partInfo // by number
	seen  time.Time
}

type partInfo struct {
	leader   int32 // -1 = none
	replicas int
}

func (t topicInfo) n() int32 { return int32(len(t.parts)) }

// replicas is how many each partition has at least.
func (t topicInfo) replicas() (n int) {
	for i, p := range t.parts {
		if i == 0 || p.replicas < n {
			n = p.replicas
		}
	}
	return n
}

// describe reads what the cluster knows of topics; what is not there is left out. A nil list means all.
func (d *driver) describe(ctx context.Context, names []string) (map[string]topicInfo, error) {
	m, err := d.metadata(ctx, names)
	if err != nil {
		return nil, err
	}
	all := map[string]topicInfo{}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range m.Topics {
		switch t.Err {
		case sarama.ErrNoError, sarama.ErrLeaderNotAvailable:
		case sarama.ErrUnknownTopicOrPartition:
			delete(d.topics, t.Name)
			continue
		default:
			return nil, t.Err
		}
		info := topicInfo{id: t.Uuid, parts: make([]partInfo, len(t.Partitions)), seen: time.Now()}
		for _, p := range t.Partitions {
			if int(p.ID) < len(info.parts) {
				info.parts[p.ID] = partInfo{p.Leader, len(p.Replicas)}
				if p.Err != sarama.ErrNoError && p.Err != sarama.ErrReplicaNotAvailable {
					info.parts[p.ID].leader = -1
				}
			}
		}
		all[t.Name] = info
		delete(d.missed, t.Name)
		if names != nil {
			d.topics[t.Name] = info
		}
	}
	return all, nil
}

// infoAge is how long a publisher believes what it has seen of a topic: partitions may be added.
const infoAge = time.Minute

// known returns a topic that was seen, or looks for it.
func (d *driver) known(ctx context.Context, name string) (topicInfo, bool, error) {
	d.mu.Lock()
	info, ok := d.topics[name]
	d.mu.Unlock()
	if ok && info.n() > 0 && time.Since(info.seen) < infoAge {
		return info, true, nil
	}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	all, err := d.describe(ctx, []string{name})
	info, ok = all[name]
	return info, ok && info.n() > 0, err
}

// sought returns a topic to which something is to go. One answer does not mean that there is none: brokers hear of topics one after the other, and are
// behind when they have just started. So it is looked for until it must be gone, but not again and again: that would hold up what goes elsewhere.
func (d *driver) sought(ctx context.Context, name string) (topicInfo, bool, error) {
	for since := time.Now(); ; {
		info, ok, err := d.known(ctx, name)
		if ok || err != nil {
			return info, ok, err
		}
		d.mu.Lock()
		last, missed := d.missed[name]
		gone := missed && time.Since(last) < infoAge || time.Since(since) >= vanishes
		if gone {
			maps.DeleteFunc(d.missed, func(_ string, last time.Time) bool { return time.Since(last) >= infoAge })
			d.missed[name] = time.Now()
		}
		d.mu.Unlock()
		if gone {
			return info, false, nil
		}
		if !pause(ctx, joinRetry) {
			return info, false, ctx.Err()
		}
	}
}

// forget lets the next publish look for its topic again.
func (d *driver) forget(name string) {
	d.mu.Lock()
	delete(d.topics, name)
	d.mu.Unlock()
}

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

// ensureTopic makes a topic, or checks the one that is there.
func (d *driver) ensureTopic(ctx context.Context, spec pubsub.TopicSpec, m pubsub.Manage) (topicInfo, error) {
	all, err := d.describe(ctx, []string{spec.Name})
	if err != nil {
		return topicInfo{}, err
	}
	info, ok := all[spec.Name]
	if ok {
		return info, d.agrees(ctx, info, spec)
	}
	if m != pubsub.Create {
		return info, says(pubsub.ErrNotFound, "there is no topic %q", spec.Name)
	}
	parts := int32(max(spec.Partitions, 1))
	replicas := d.replicas
	if spec.Replicas > 0 {
		replicas = int16(spec.Replicas)
	}
	if replicas < 3 && d.caps.Durability == pubsub.Replicated {
		return info, says(pubsub.ErrUnsupported, "topic %q with %d replicas can lose what it has confirmed: give it 3, or open with ?durability=process", spec.Name, replicas)
	}
	detail := detail(parts, replicas, map[string]string{})
	if keep := max(spec.Retention, d.cfg.Retention); spec.Retention > 0 || keep > 0 {
		if spec.Retention > 0 {
			keep = spec.Retention
		}
		setting(detail, "retention.ms", strconv.FormatInt(keep.Milliseconds(), 10))
	}
	if spec.MaxBytes > 0 {
		setting(detail, "retention.bytes", strconv.FormatInt(max(spec.MaxBytes/int64(parts), 1), 10))
	}
	if err := d.create(ctx, map[string]*sarama.TopicDetail{spec.Name: detail}); err != nil {
		return info, err
	}
	return d.ensureTopic(ctx, spec, pubsub.Verify) // another one may have been faster
}

// detail is a topic of ours. With fewer than 3 replicas it stays the broker's affair how many must have what is confirmed: none could be missing.
func detail(parts int32, replicas int16, settings map[string]string) *sarama.TopicDetail {
	t := &sarama.TopicDetail{NumPartitions: parts, ReplicationFactor: replicas, ConfigEntries: map[string]*string{}}
	if replicas >= 3 {
		setting(t, "min.insync.replicas", "2")
	}
	for name, value := range settings {
		setting(t, name, value)
	}
	return t
}

func setting(t *sarama.TopicDetail, name, value string) { t.ConfigEntries[name] = &value }

// create makes topics that are not there, and waits until the brokers know them.
func (d *driver) create(ctx context.Context, topics map[string]*sarama.TopicDetail) error {
	req := sarama.NewCreateTopicsRequest(d.base.Version, topics, answerWithin, false)
	res, err := controlled(ctx, d, func(b *sarama.Broker) (*sarama.CreateTopicsResponse, error) { return b.CreateTopics(req) })
	if err != nil {
		return err
	}
	names := make([]string, 0, len(topics))
	for name := range topics {
		names = append(names, name)
		switch e := res.TopicErrors[name]; {
		case e == nil || e.Err == sarama.ErrNoError || e.Err == sarama.ErrTopicAlreadyExists:
		case e.Err == sarama.ErrInvalidReplicationFactor && int(topics[name].ReplicationFactor) <= d.nodes:
			return &brokerError{pubsub.ErrUnavailable, false, fmt.Sprintf("topic %q is to have %d replicas, and the cluster has fewer brokers at the moment",
				name, topics[name].ReplicationFactor)}
		default:
			return sarama.Wrap(e.Err, e)
		}
	}
	for {
		all, err := d.describe(ctx, names)
		if err != nil {
			return err
		}
		ready := len(all) == len(topics)
		for _, info := range all {
			ready = ready && info.n() > 0 && !slices.ContainsFunc(info.parts, func(p partInfo) bool { return p.leader < 0 })
		}
		if ready {
			return nil
		}
		if !pause(ctx, 10*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// agrees checks a topic that is there.
func (d *driver) agrees(ctx context.Context, info topicInfo, spec pubsub.TopicSpec) error {
	n, replicas := info.n(), info.replicas()
	switch {
	case spec.Partitions != 0 && int32(spec.Partitions) != n:
		return says(pubsub.ErrConflict, "topic %q has %d partitions, not %d", spec.Name, n, spec.Partitions)
	case spec.Replicas != 0 && spec.Replicas != replicas:
		return says(pubsub.ErrConflict, "topic %q has %d replicas, not %d", spec.Name, replicas, spec.Replicas)
	}
	if spec.Retention == 0 && spec.MaxBytes == 0 && d.caps.Durability < pubsub.Replicated {
		return nil
	}
	have, err := d.settings(ctx, sarama.TopicResource, spec.Name)
	if err != nil {
		return err
	}
	if err := d.keeps(spec.Name, info, have); err != nil {
		return err
	}
	if keep := strconv.FormatInt(spec.Retention.Milliseconds(), 10); spec.Retention != 0 && have["retention.ms"] != keep {
		return says(pubsub.ErrConflict, "topic %q has retention.ms=%s, not %s", spec.Name, have["retention.ms"], keep)
	}
	if size := strconv.FormatInt(max(spec.MaxBytes/int64(max(n, 1)), 1), 10); spec.MaxBytes != 0 && have["retention.bytes"] != size {
		return says(pubsub.ErrConflict, "topic %q has retention.bytes=%s for each partition, not %s", spec.Name, have["retention.bytes"], size)
	}
	return nil
}

// A group is what a member needs to know.
type group struct {
	*definition
	topics map[string]topicInfo // those that it reads, and its own
	grows  bool                 // a member may give it partitions when its topic got some
}

// ensureGroup makes what a group needs, or checks what is there.
func (d *driver) ensureGroup(ctx context.Context, spec pubsub.SourceSpec) (*group, error) {
	place := pubsub.Place{Topic: spec.From.Topic, Group: spec.From.Group}
	m := spec.Manage
	if m == pubsub.Off {
		m = pubsub.Verify
	}
	parts := int32(1)
	read := map[string]topicInfo{}
	if pubsub.IsPattern(place.Topic) {
		all, err := d.describe(ctx, nil)
		if err != nil {
			return nil, err
		}
		for name, info := range all {
			if pubsub.MatchPattern(place.Topic, name) {
				read[name] = info
			}
		}
	} else {
		info, err := d.ensureTopic(ctx, pubsub.TopicSpec{Name: place.Topic}, m)
		if err != nil {
			return nil, err
		}
		read[place.Topic] = info
		parts = info.n()
	}
	tiers := int32(len(pubsub.Tiers()))
	wanted := map[string]*sarama.TopicDetail{
		private(kindRetry, place):      d.own(parts, forever),
		private(kindTiers, place):      d.own(min(parts, maxTierParts)*tiers, forTiers),
		private(kindQuarantine, place): d.own(1, forever),
		private(kindDead, place):       d.own(1, forever),
		private(kindState, place):      d.own(1, forever),
	}
	names := slices.Sorted(maps.Keys(wanted))
	if slices.ContainsFunc(names, func(name string) bool { return len(name) > maxTopicName }) {
		return nil, says(pubsub.ErrInvalid, "the names of topic %q and group %q are too long for a topic of ours", place.Topic, place.Group)
	}
	own, err := d.describe(ctx, names)
	if err != nil {
		return nil, err
	}
	missing := map[string]*sarama.TopicDetail{}
	for name, detail := range wanted {
		if _, ok := own[name]; !ok {
			missing[name] = detail
		}
	}
	if len(missing) > 0 {
		if m != pubsub.Create {
			return nil, says(pubsub.ErrNotFound, "group %q of %q has no topic %s", place.Group, place.Topic, strings.Join(slices.Sorted(maps.Keys(missing)), ", "))
		}
		if err := d.create(ctx, missing); err != nil {
			return nil, err
		}
		if own, err = d.describe(ctx, names); err != nil {
			return nil, err
		}
	}
	if have := own[private(kindRetry, place)].n(); have < parts && m == pubsub.Create {
		if err := d.grow(ctx, private(kindRetry, place), parts); err != nil {
			return nil, err
		}
		if own, err = d.describe(ctx, names); err != nil {
			return nil, err
		}
	}
	if n := own[private(kindTiers, place)].n(); n < tiers {
		return nil, says(pubsub.ErrConflict, "topic %q has %d partitions, and needs one for each of the %d tiers", private(kindTiers, place), n, tiers)
	}
	for name, info := range own {
		if err := d.trusted(ctx, name, info); err != nil {
			return nil, err
		}
	}
	def, err := d.define(ctx, place, spec, m, read, own[private(kindQuarantine, place)])
	if err != nil {
		return nil, err
	}
	if def.AckWait != spec.AckWait || def.Exclusive != spec.Order.Exclusive() {
		return nil, says(pubsub.ErrConflict, "group %q of %q has an ack wait of %v and exclusive=%v, not %v and %v; all its members must agree",
			place.Group, place.Topic, def.AckWait, def.Exclusive, spec.AckWait, spec.Order.Exclusive())
	}
	g := &group{def, read, m == pubsub.Create}
	maps.Copy(g.topics, own)
	return g, nil
}

const (
	maxTierParts = 8 // partitions of each tier: there is no order in them, and no more are needed to share the work
	forever      = -1
	forTiers     = int64(14 * 24 * time.Hour / time.Millisecond) // longer than the longest tier and an outage
)

// own is a private topic. What a group has for itself may be a bit larger than what users can publish.
func (d *driver) own(parts int32, retention int64) *sarama.TopicDetail {
	return detail(parts, d.replicas, map[string]string{
		"retention.ms": strconv.FormatInt(retention, 10), "retention.bytes": "-1", "cleanup.policy": "delete", "max.message.bytes": strconv.Itoa(d.limit + 64<<10),
	})
}

// grow gives a topic more partitions.
func (d *driver) grow(ctx context.Context, topic string, parts int32) error {
	req := &sarama.CreatePartitionsRequest{Version: 1, TopicPartitions: map[string]*sarama.TopicPartition{topic: {Count: parts}}, Timeout: answerWithin}
	res, err := controlled(ctx, d, func(b *sarama.Broker) (*sarama.CreatePartitionsResponse, error) { return b.CreatePartitions(req) })
	if err != nil {
		return err
	}
	if e := res.TopicPartitionErrors[topic]; e != nil && e.Err != sarama.ErrNoError && e.Err != sarama.ErrInvalidPartitions { // another was faster
		return e.Err
	}
	return nil
}

// startOffsets finds where a group begins.
func (d *driver) startOffsets(ctx context.Context, s pubsub.Start, read map[string]topicInfo) (map[string][]int64, error) {
	kind, when, pos := s.Parts()
	if kind == pubsub.StartEarliest {
		return nil, nil
	}
	ask := sarama.OffsetNewest
	switch kind {
	case pubsub.StartTime:
		ask = when.UnixMilli()
	case pubsub.StartPosition:
		ask = sarama.OffsetOldest
		if k, _, store, _ := pos.Parts(); k != positionKind || store != 0 {
			return nil, says(pubsub.ErrInvalid, "position %v is not one in a topic of Kafka's", pos)
		}
		if len(read) != 1 {
			return nil, says(pubsub.ErrInvalid, "a position is one in a topic, and there are %d to begin with", len(read))
		}
	}
	start := map[string][]int64{}
	for topic, info := range read {
		list, err := d.offsets(ctx, topic, info, ask)
		if err != nil {
			return nil, err
		}
		if kind == pubsub.StartPosition {
			_, offset, _, partition := pos.Parts()
			if partition < 0 || partition >= info.n() || offset < 0 {
				return nil, says(pubsub.ErrInvalid, "topic %q has no position %v", topic, pos)
			}
			ends, err := d.offsets(ctx, topic, info, sarama.OffsetNewest)
			if err != nil {
				return nil, err
			}
			if err := d.since(ctx, topic, info, partition, offset, list, ends); err != nil {
				return nil, err
			}
		}
		start[topic] = list
	}
	return start, nil
}

// offsets asks the leaders of a topic: sarama.OffsetNewest, OffsetOldest, or the first message at a time in milliseconds or later (the end if none is).
func (d *driver) offsets(ctx context.Context, topic string, info topicInfo, when int64) ([]int64, error) {
	all := make([]int64, info.n())
	var ends []int64
	if when >= 0 { // before the rest is asked: what is published meanwhile lies behind them
		var err error
		if ends, err = d.offsets(ctx, topic, info, sarama.OffsetNewest); err != nil {
			return nil, err
		}
	}
	by := map[int32][]int32{}
	for p, x := range info.parts {
		by[x.leader] = append(by[x.leader], int32(p))
	}
	for leader, parts := range by {
		address, err := d.addressOf(leader)
		if err != nil {
			return nil, err
		}
		req := sarama.NewOffsetRequest(d.base.Version)
		req.IsolationLevel = d.isolation()
		for _, p := range parts {
			req.AddBlock(topic, p, when, 1)
		}
		res, err := at(ctx, d, address, func(b *sarama.Broker) (*sarama.OffsetResponse, error) { return b.GetAvailableOffsets(req) })
		if err != nil {
			return nil, err
		}
		for _, p := range parts {
			b := res.GetBlock(topic, p)
			if b == nil {
				return nil, sarama.ErrIncompleteResponse
			}
			if b.Err != sarama.ErrNoError {
				return nil, b.Err
			}
			if all[p] = b.Offset; all[p] < 0 && when >= 0 {
				all[p] = ends[p]
			}
		}
	}
	return all, nil
}

func (d *driver) isolation() sarama.IsolationLevel {
	if d.cfg.ReadAll {
		return sarama.ReadUncommitted
	}
	return sarama.ReadCommitted
}

// exists finds where a message is to go: the partitions of its place.
func (d *driver) exists(ctx context.Context, p pubsub.Place) (topic string, from, to int32, err error) {
	topic = topicOf(p)
	info, ok, err := d.sought(ctx, topic)
	switch {
	case err != nil && errors.Is(err, sarama.ErrInvalidTopic), err == nil && !ok && p.Kind == pubsub.PlaceMain:
		err = says(pubsub.ErrUnroutable, "there is no topic %q", p.Topic)
	case err == nil && !ok:
		err = says(pubsub.ErrUnroutable, "there is no group %q of %q", p.Group, p.Topic)
	}
	if err != nil {
		return topic, 0, 0, err
	}
	if err := d.trusted(ctx, topic, info); err != nil {
		return topic, 0, 0, err
	}
	if from, to = span(p, info.n()); from < 0 || to <= from {
		err = says(pubsub.ErrConflict, "topic %q has %d partitions, and none of them is for the tier %v", topic, info.n(), p.Tier)
	}
	return topic, from, to, err
}
