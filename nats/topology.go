package nats

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	maxAckPending = 1_000_000 // far above any MaxInFlight: what waits for its retry counts too
	maxWaiting    = 1 << 14   // requests of all members together: one above it is dropped without a word, and its member hears nothing any more
	pinnedTTL     = 4 * time.Second
	lockTTL       = 5 * time.Second
)

// Ensure implements pubsub.Driver.
func (d *driver) Ensure(ctx context.Context, t pubsub.Topology, m pubsub.Manage) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	if _, err := d.connected(ctx); err != nil {
		return err
	}
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

// ensureTopic makes a topic, or checks the one that is there. A pattern needs no more than the stream.
func (d *driver) ensureTopic(ctx context.Context, spec pubsub.TopicSpec, m pubsub.Manage) (*jetstream.StreamInfo, error) {
	info, err := d.stream(ctx, d.names.stream)
	missing := errors.Is(err, jetstream.ErrStreamNotFound)
	if err != nil && !missing {
		return nil, err
	}
	if !missing && (has(info, spec.Name) || pubsub.IsPattern(spec.Name)) {
		return info, d.agrees(info, spec)
	}
	if m != pubsub.Create {
		return nil, says(pubsub.ErrNotFound, "there is no topic %q in the stream %q", spec.Name, d.names.stream)
	}
	if missing {
		cfg := d.streamConfig(spec)
		if err := d.durable(&cfg); err != nil {
			return nil, err
		}
		s, err := d.now().js.CreateStream(ctx, cfg)
		if err == nil {
			return s.CachedInfo(), nil
		}
		if !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return nil, err
		}
		return d.ensureTopic(ctx, spec, m) // somebody was faster, for another topic
	}
	return d.addTopic(ctx, spec)
}

// streamConfig is the stream of the topics when it is made for spec.
func (d *driver) streamConfig(spec pubsub.TopicSpec) jetstream.StreamConfig {
	cfg := jetstream.StreamConfig{
		Name: d.names.stream, Retention: jetstream.LimitsPolicy, Storage: d.cfg.storage(), Replicas: max(d.cfg.Replicas, 1),
		MaxAge: d.cfg.Retention, MaxBytes: -1, Duplicates: d.cfg.Dedup, AllowDirect: true, Metadata: map[string]string{},
		AllowMsgSchedules: true, Subjects: []string{d.names.later() + ">"},
	}
	if d.cfg.MaxBytes > 0 {
		cfg.MaxBytes = d.cfg.MaxBytes
	}
	if spec.Replicas > 0 {
		cfg.Replicas = spec.Replicas
	}
	if spec.Retention > 0 {
		cfg.MaxAge = spec.Retention
	}
	if spec.MaxBytes > 0 {
		cfg.MaxBytes = spec.MaxBytes
	}
	cfg.Duplicates = dedupWindow(cfg.Duplicates, cfg.MaxAge)
	subjects(&cfg, spec)
	return cfg
}

// dedupWindow cannot be longer than messages are kept.
func dedupWindow(window, maxAge time.Duration) time.Duration {
	if maxAge > 0 {
		return min(window, maxAge)
	}
	return window
}

// subjects adds those of a topic; a pattern has none.
func subjects(cfg *jetstream.StreamConfig, spec pubsub.TopicSpec) {
	name := spec.Name
	if pubsub.IsPattern(name) {
		return
	}
	cfg.Subjects = append(slices.Clip(cfg.Subjects), name)
	if spec.Partitions > 1 {
		cfg.Subjects = append(cfg.Subjects, lanePrefix+"*."+name)
		cfg.Metadata[partsKey+name] = strconv.Itoa(spec.Partitions)
	}
}

// agrees checks a topic that is there.
func (d *driver) agrees(info *jetstream.StreamInfo, spec pubsub.TopicSpec) error {
	cfg := &info.Config
	if err := d.durable(cfg); err != nil {
		return err
	}
	switch {
	case cfg.Retention != jetstream.LimitsPolicy:
		return says(pubsub.ErrConflict, "the stream %q has %v retention; groups need limits", cfg.Name, cfg.Retention)
	case spec.Partitions != 0 && spec.Partitions != partsOf(info, spec.Name):
		return says(pubsub.ErrConflict, "topic %q has %d partitions, not %d", spec.Name, partsOf(info, spec.Name), spec.Partitions)
	case spec.Replicas != 0 && spec.Replicas != cfg.Replicas:
		return says(pubsub.ErrConflict, "the stream %q of topic %q has %d replicas, not %d", cfg.Name, spec.Name, cfg.Replicas, spec.Replicas)
	case spec.Retention != 0 && spec.Retention != cfg.MaxAge:
		return says(pubsub.ErrConflict, "the stream %q of topic %q keeps messages for %v, not %v", cfg.Name, spec.Name, cfg.MaxAge, spec.Retention)
	case spec.MaxBytes != 0 && spec.MaxBytes != cfg.MaxBytes:
		return says(pubsub.ErrConflict, "the stream %q of topic %q keeps %d bytes, not %d", cfg.Name, spec.Name, cfg.MaxBytes, spec.MaxBytes)
	}
	return nil
}

// addTopic adds a topic to a stream that is there. An update replaces all settings, whoever changed them meanwhile, so it is made
// under a lock: an ephemeral consumer, which can be made once and is gone soon after its maker. One that is not answered while the lock
// surely holds is made again under another.
func (d *driver) addTopic(ctx context.Context, spec pubsub.TopicSpec) (*jetstream.StreamInfo, error) {
	for {
		ends, err := d.lock(ctx)
		if err != nil {
			return nil, err
		}
		held, cancel := context.WithDeadline(ctx, ends.Add(-lockTTL/2))
		info, err := d.addLocked(held, spec)
		cancel()
		d.unlock(ctx, ends)
		if err == nil || ctx.Err() != nil || !unanswered(err) {
			return info, err
		}
	}
}

const lockName = "omnibus__lock"

// lock returns when the lock may end: counted from before it was asked for, since the answer may have come long after the lock was there.
func (d *driver) lock(ctx context.Context) (ends time.Time, err error) {
	mine := jetstream.ConsumerConfig{
		Name: lockName, AckPolicy: jetstream.AckNonePolicy, DeliverPolicy: jetstream.DeliverNewPolicy, InactiveThreshold: lockTTL,
		MemoryStorage: true, Replicas: 1, Metadata: map[string]string{"owner": client.NewInbox()},
	}
	for {
		ends = time.Now().Add(lockTTL)
		_, err := d.now().js.CreateConsumer(ctx, d.names.stream, mine)
		if !errors.Is(err, jetstream.ErrConsumerExists) {
			return ends, err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ends, fmt.Errorf("another one changes the stream %q: %w", d.names.stream, ctx.Err())
		}
	}
}

// unlock ends the lock early, but not one that somebody else has made after its end.
func (d *driver) unlock(ctx context.Context, ends time.Time) {
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), ends)
	defer cancel()
	_ = d.now().js.DeleteConsumer(ctx, d.names.stream, lockName) // else it ends by itself
}

func (d *driver) addLocked(ctx context.Context, spec pubsub.TopicSpec) (*jetstream.StreamInfo, error) {
	info, err := d.stream(ctx, d.names.stream)
	if err != nil {
		return nil, err
	}
	if has(info, spec.Name) {
		return info, d.agrees(info, spec)
	}
	if err := d.agrees(info, pubsub.TopicSpec{Name: spec.Name, Replicas: spec.Replicas, Retention: spec.Retention, MaxBytes: spec.MaxBytes}); err != nil {
		return nil, err
	}
	cfg := info.Config
	cfg.Metadata = maps.Clone(cfg.Metadata)
	if cfg.Metadata == nil {
		cfg.Metadata = map[string]string{}
	}
	subjects(&cfg, spec)
	s, err := d.now().js.UpdateStream(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return s.CachedInfo(), nil
}

// A consumerName is a consumer that a source reads.
type consumerName struct {
	stream, name string
	lane         int32
	made         time.Time
}

// ensureGroup makes what a group needs, or checks what is there, and returns the consumers of its place.
func (d *driver) ensureGroup(ctx context.Context, spec pubsub.SourceSpec) (all []consumerName, err error) {
	place := spec.From
	if place.Kind == pubsub.PlaceQuarantine {
		return d.ensureOwn(ctx, spec, 0, "0")
	}
	info, err := d.ensureTopic(ctx, pubsub.TopicSpec{Name: place.Topic}, spec.Manage)
	if err != nil {
		return nil, err
	}
	if spec.Manage == pubsub.Create {
		if err := d.ensurePrivate(ctx, info); err != nil {
			return nil, err
		}
	}
	// the private places first: where the group is there, they are
	own := spec
	own.From.Kind = pubsub.PlaceQuarantine
	if _, err := d.ensureOwn(ctx, own, 0, "0"); err != nil {
		return nil, err
	}
	own.From.Kind = pubsub.PlaceRetry
	main := d.groupConsumers(info, spec)
	var retries []consumerName
	for lane := range main {
		of := "*"
		if len(main) > 1 {
			of = strconv.Itoa(lane)
		}
		names, err := d.ensureOwn(ctx, own, int32(lane), of)
		if err != nil {
			return nil, err
		}
		retries = append(retries, names...)
	}
	if place.Kind == pubsub.PlaceRetry {
		return retries, nil
	}
	for lane, c := range main {
		made, err := d.ensureConsumer(ctx, d.names.stream, c, spec)
		if err != nil {
			return nil, err
		}
		all = append(all, consumerName{d.names.stream, c.Durable, int32(lane), made})
	}
	return append(all, retries...), nil
}

// ensureOwn makes or checks the consumer of a private place.
func (d *driver) ensureOwn(ctx context.Context, spec pubsub.SourceSpec, lane int32, of string) ([]consumerName, error) {
	c := jetstream.ConsumerConfig{
		Durable: durable(spec.From, lane), FilterSubject: d.names.subject(spec.From, of), DeliverPolicy: jetstream.DeliverAllPolicy,
	}
	if spec.From.Kind == pubsub.PlaceQuarantine {
		c.MaxAckPending = 1 // of the whole group
	}
	made, err := d.ensureConsumer(ctx, d.names.work(), c, spec)
	return []consumerName{{d.names.work(), c.Durable, lane, made}}, err
}

// groupConsumers are the durables of a group: one for each partition where one member at a time is to be active on it, else one.
func (d *driver) groupConsumers(info *jetstream.StreamInfo, spec pubsub.SourceSpec) []jetstream.ConsumerConfig {
	place, parts := spec.From, partsOf(info, spec.From.Topic)
	var all []jetstream.ConsumerConfig
	if !spec.Order.Exclusive() || parts == 1 {
		c := jetstream.ConsumerConfig{Durable: durable(place, 0)}
		if subjects := filters(place.Topic, parts); len(subjects) == 1 {
			c.FilterSubject = subjects[0]
		} else {
			c.FilterSubjects = subjects
		}
		all = append(all, c)
	} else {
		for lane := range int32(parts) {
			all = append(all, jetstream.ConsumerConfig{Durable: durable(place, lane), FilterSubject: laneSubject(place.Topic, lane)})
		}
	}
	for i := range all {
		startAt(&all[i], spec.Start, info.State.LastSeq)
		if spec.Order.Exclusive() {
			all[i].PriorityPolicy, all[i].PriorityGroups, all[i].PinnedTTL = jetstream.PriorityPolicyPinned, []string{pinGroup}, pinnedTTL
		}
	}
	return all
}

// startAt says where a group begins. The end is named by its number: unlike "new" that means the same after a restart.
func startAt(c *jetstream.ConsumerConfig, s pubsub.Start, last uint64) {
	kind, at, pos := s.Parts()
	switch kind {
	case pubsub.StartEarliest:
		c.DeliverPolicy = jetstream.DeliverAllPolicy
		return
	case pubsub.StartTime:
		c.DeliverPolicy, c.OptStartTime = jetstream.DeliverByStartTimePolicy, &at
		return
	}
	c.DeliverPolicy, c.OptStartSeq = jetstream.DeliverByStartSequencePolicy, last+1
	if k, seq, _, _ := pos.Parts(); kind == pubsub.StartPosition && k == positionKind {
		c.OptStartSeq = uint64(max(seq, 1))
	}
}

// ensureConsumer makes a durable, or checks that the one that is there agrees. It tells when it was made.
func (d *driver) ensureConsumer(ctx context.Context, stream string, c jetstream.ConsumerConfig, spec pubsub.SourceSpec) (made time.Time, err error) {
	for range 2 {
		have, err := d.now().js.Consumer(ctx, stream, c.Durable)
		if err == nil {
			cfg := have.CachedInfo().Config
			if cfg.AckWait != spec.AckWait || cfg.PriorityPolicy != c.PriorityPolicy {
				return made, says(pubsub.ErrConflict, "group %q of %q has an ack wait of %v and exclusive=%v, not %v and %v; all its members must agree",
					spec.From.Group, spec.From.Topic, cfg.AckWait, pinned(&cfg), spec.AckWait, pinned(&c))
			}
			if !slices.Equal(reads(cfg), reads(c)) {
				return made, says(pubsub.ErrConflict, "the consumer %q of group %q of %q reads %q: another group has that name", c.Durable, spec.From.Group, spec.From.Topic, reads(cfg))
			}
			return have.CachedInfo().Created, nil
		}
		if !errors.Is(err, jetstream.ErrConsumerNotFound) && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return made, err
		}
		if spec.Manage != pubsub.Create {
			return made, says(pubsub.ErrNotFound, "there is no group %q of %q", spec.From.Group, spec.From.Topic)
		}
		c.AckPolicy, c.AckWait, c.MaxDeliver, c.MaxWaiting = jetstream.AckExplicitPolicy, spec.AckWait, -1, maxWaiting
		if c.MaxAckPending == 0 {
			c.MaxAckPending = maxAckPending
		}
		if have, err = d.now().js.CreateConsumer(ctx, stream, c); err == nil {
			return have.CachedInfo().Created, nil
		}
		if !errors.Is(err, jetstream.ErrConsumerExists) { // another member was faster
			return made, err
		}
	}
	return made, says(pubsub.ErrConflict, "group %q of %q is being made with other settings", spec.From.Group, spec.From.Topic)
}

// reads are the subjects of a consumer.
func reads(c jetstream.ConsumerConfig) []string {
	if c.FilterSubject != "" {
		return []string{c.FilterSubject}
	}
	return slices.Sorted(slices.Values(c.FilterSubjects))
}

// ensurePrivate makes the two streams of ours, as durable as the topics'.
func (d *driver) ensurePrivate(ctx context.Context, of *jetstream.StreamInfo) error {
	for _, name := range []string{d.names.work(), d.names.dead()} {
		if _, err := d.now().js.Stream(ctx, name); !errors.Is(err, jetstream.ErrStreamNotFound) {
			if err != nil {
				return err
			}
			continue
		}
		cfg := jetstream.StreamConfig{
			Name: name, Storage: of.Config.Storage, Replicas: of.Config.Replicas, MaxBytes: -1, Duplicates: d.cfg.Dedup, AllowDirect: true,
			Retention: jetstream.WorkQueuePolicy, Subjects: []string{"omnibus.retry." + d.names.stream + ".>", "omnibus.quarantine." + d.names.stream + ".>"},
		}
		if name == d.names.dead() {
			cfg.Retention, cfg.Subjects = jetstream.LimitsPolicy, []string{"omnibus.dead." + d.names.stream + ".>"}
		}
		if _, err := d.now().js.CreateStream(ctx, cfg); err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return err
		}
	}
	return nil
}
