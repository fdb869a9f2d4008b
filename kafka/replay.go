package kafka

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"maps"
	"slices"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/internal/drivers"
	"github.com/omnibus-go/omnibus/pubsub"
)

// existing finds a group without making anything.
func (d *driver) existing(ctx context.Context, topic, name string) (pubsub.Place, *group, error) {
	place := pubsub.Place{Topic: topic, Group: name}
	none := says(pubsub.ErrNotFound, "there is no group %q of %q", name, topic)
	g := &group{topics: map[string]topicInfo{}}
	retry, tiers, quarantine := private(kindRetry, place), private(kindTiers, place), private(kindQuarantine, place)
	names := []string{retry, tiers, quarantine}
	if pubsub.IsPattern(topic) {
		names = nil
	} else {
		names = append(names, topic)
	}
	all, err := d.describe(ctx, names)
	if err != nil {
		return place, nil, err
	}
	for name, info := range all {
		if name == retry || name == tiers || name == topic || pubsub.IsPattern(topic) && pubsub.MatchPattern(topic, name) {
			g.topics[name] = info
		}
	}
	in, ok := all[quarantine]
	if !ok {
		return place, nil, none
	}
	d.mu.Lock()
	g.definition = d.groups[place]
	d.mu.Unlock()
	if g.definition == nil || g.of != in.id {
		if g.definition, err = d.readDefinition(ctx, quarantine); err != nil {
			return place, nil, err
		}
		if g.definition == nil {
			return place, nil, none
		}
	}
	return place, g, nil
}

// committed reads where a group stands, whoever its members are.
func (d *driver) committed(ctx context.Context, place pubsub.Place, parts map[string][]int32) (map[string]map[int32]*sarama.OffsetFetchResponseBlock, error) {
	address, err := d.coordinatorOf(ctx, groupID(place))
	if err != nil {
		return nil, err
	}
	req := sarama.NewOffsetFetchRequest(d.base.Version, groupID(place), parts)
	res, err := at(ctx, d, address, func(b *sarama.Broker) (*sarama.OffsetFetchResponse, error) { return b.FetchOffset(req) })
	if err != nil {
		return nil, err
	}
	return offsetBlocks(res, groupID(place))
}

// again makes a request until its answer is not one that passes.
func again(ctx context.Context, f func() error) error {
	for {
		err := f()
		if _, answered := errors.AsType[sarama.KError](err); !answered || !passes(err) {
			return err
		}
		if !pause(ctx, joinRetry) {
			return err
		}
	}
}

func (g *group) parts() map[string][]int32 {
	all := map[string][]int32{}
	for topic, info := range g.topics {
		for p := range info.n() {
			all[topic] = append(all[topic], p)
		}
	}
	return all
}

// Lag implements pubsub.Lagger: what is not settled, retries included. The records of transactions count too: Kafka does not tell them apart.
func (d *driver) Lag(ctx context.Context, topic, name string) (pubsub.Lag, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	lag := pubsub.Lag{Kind: pubsub.LagExact}
	place, g, err := d.existing(ctx, topic, name)
	if err != nil {
		return lag, err
	}
	var at map[string]map[int32]*sarama.OffsetFetchResponseBlock
	err = again(ctx, func() error {
		at, err = d.committed(ctx, place, g.parts())
		return err
	})
	if err != nil {
		return lag, err
	}
	for topic, info := range g.topics {
		first, ends, err := d.limits(ctx, topic, info)
		if err != nil {
			return lag, err
		}
		for p, end := range ends {
			from := g.start(topic, info.id, int32(p))
			var m mark
			if b := at[topic][int32(p)]; b != nil && b.Offset >= 0 {
				from = b.Offset
				m = parseMark(from, b.Metadata)
			}
			lag.Messages += open(max(from, first[p]), end, m.runs)
		}
	}
	return lag, nil
}

// limits are the oldest offset of each partition, and the next one. The leader of a topic that is new may not know yet that it is; it is asked again, and so is who
// the leader is.
func (d *driver) limits(ctx context.Context, topic string, info topicInfo) (first, next []int64, err error) {
	for {
		if next, err = d.offsets(ctx, topic, info, sarama.OffsetNewest); err == nil {
			first, err = d.offsets(ctx, topic, info, sarama.OffsetOldest)
		}
		if !errors.Is(err, sarama.ErrNotLeaderForPartition) && !errors.Is(err, sarama.ErrLeaderNotAvailable) || !pause(ctx, joinRetry) {
			return first, next, err
		}
		if all, described := d.describe(ctx, []string{topic}); described == nil && all[topic].n() == info.n() {
			info = all[topic]
		}
	}
}

// open is how many offsets from one on, up to an end, are not in runs.
func open(from, end int64, runs []run) int64 {
	n := max(end-from, 0)
	for _, r := range runs {
		if r.to < end {
			n -= max(r.to-max(r.from, from)+1, 0)
		}
	}
	return n
}

// Topics implements pubsub.Lister.
func (d *driver) Topics(ctx context.Context) ([]string, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	all, err := d.describe(ctx, nil)
	return slices.Collect(maps.Keys(all)), err
}

// Seek implements pubsub.Seeker. What was sent to the group alone, and its retries, stay as they are.
func (d *driver) Seek(ctx context.Context, topic, name string, to pubsub.Start) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	place, g, err := d.existing(ctx, topic, name)
	if err != nil {
		return err
	}
	read := map[string]topicInfo{}
	for name, info := range g.topics {
		if name != private(kindRetry, place) && name != private(kindTiers, place) {
			read[name] = info
		}
	}
	start, err := d.startOffsets(ctx, to, read)
	if err != nil {
		return err
	}
	req := sarama.NewOffsetCommitRequest(d.base, groupID(place))
	for name, info := range read {
		for p := range info.n() {
			offset := int64(0)
			if list := start[name]; int(p) < len(list) {
				offset = max(list[p], 0)
			}
			req.AddBlockWithLeaderEpoch(name, p, offset, -1, 0, "")
		}
	}
	return again(ctx, func() error {
		address, err := d.coordinatorOf(ctx, groupID(place))
		if err != nil {
			return err
		}
		res, err := at(ctx, d, address, func(b *sarama.Broker) (*sarama.OffsetCommitResponse, error) { return b.CommitOffset(req) })
		if err != nil {
			return err
		}
		for _, parts := range res.Errors {
			for _, e := range parts {
				switch e {
				case sarama.ErrNoError:
				case sarama.ErrUnknownMemberId, sarama.ErrIllegalGeneration, sarama.ErrRebalanceInProgress:
					return says(pubsub.ErrConflict, "group %q of %q has members", name, topic)
				default:
					return e
				}
			}
		}
		return nil
	})
}

// Browse implements pubsub.Browser: the oldest first by the timestamps of records, partition by partition where these are the same.
func (d *driver) Browse(ctx context.Context, p pubsub.Place, from pubsub.Position) iter.Seq2[pubsub.Record, error] {
	return drivers.Walk(func(yield func(pubsub.Record) bool) error { return d.browse(ctx, p, from, yield) })
}

func (d *driver) browse(ctx context.Context, p pubsub.Place, from pubsub.Position, yield func(pubsub.Record) bool) error {
	topic := topicOf(p)
	opening, cancel := withTimeout(ctx)
	defer cancel()
	all, err := d.describe(opening, []string{topic})
	if err != nil {
		return err
	}
	info, ok := all[topic]
	if !ok {
		if p.Kind == pubsub.PlaceMain {
			return says(pubsub.ErrNotFound, "there is no topic %q", p.Topic)
		}
		return nil
	}
	starts, ends, err := d.limits(opening, topic, info)
	if err != nil {
		return err
	}
	if kind, offset, store, partition := from.Parts(); kind == positionKind && store == storeOf(p) && int(partition) < len(starts) {
		if err := d.since(opening, topic, info, partition, offset, starts, ends); err != nil {
			return err
		}
	}
	low, high := span(p, info.n())
	var cursors []*cursor
	for i := low; i < high; i++ {
		next, stop := iter.Pull2(d.records(ctx, topic, i, starts[i], ends[i]))
		defer stop()
		c := &cursor{partition: i, next: next}
		if c.advance() {
			cursors = append(cursors, c)
		}
		if c.err != nil {
			return c.err
		}
	}
	for len(cursors) > 0 {
		c := slices.MinFunc(cursors, func(a, b *cursor) int {
			return cmp.Or(a.e.time.Compare(b.e.time), cmp.Compare(a.partition, b.partition))
		})
		if !isDefinition(c.e.rec) || p.Kind != pubsub.PlaceQuarantine {
			r := pubsub.Record{
				Msg: decode(&c.e), Topic: p.Topic, Pos: pubsub.NewPosition(positionKind, c.e.offset, storeOf(p), c.partition),
			}
			if !yield(r) {
				return nil
			}
		}
		if !c.advance() {
			if c.err != nil {
				return c.err
			}
			cursors = slices.DeleteFunc(cursors, func(o *cursor) bool { return o == c })
		}
	}
	return nil
}

// Purge implements pubsub.Purger. A topic of dead letters that somebody has made with several partitions is refused: a browse shows them together, by their
// times, and nobody knows up to where it has shown the others.
func (d *driver) Purge(ctx context.Context, p pubsub.Place, upTo pubsub.Position) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	topic := topicOf(p)
	kind, offset, store, partition := upTo.Parts()
	all, err := d.describe(ctx, []string{topic})
	info, ok := all[topic]
	switch {
	case err != nil:
		return err
	case ok && info.n() > 1:
		return says(pubsub.ErrConflict, "topic %q has %d partitions; only one with a single partition can be purged", topic, info.n())
	case !ok || kind != positionKind || store != storeOf(p) || partition < 0 || partition >= info.n() || offset < 0:
		return says(pubsub.ErrInvalid, "the dead letters of group %q of %q have no position %v", p.Group, p.Topic, upTo)
	}
	address, err := d.addressOf(info.parts[partition].leader)
	if err != nil {
		return err
	}
	req := &sarama.DeleteRecordsRequest{Version: 1, Timeout: answerWithin, Topics: map[string]*sarama.DeleteRecordsRequestTopic{
		topic: {PartitionOffsets: map[int32]int64{partition: offset + 1}},
	}}
	res, err := at(ctx, d, address, func(b *sarama.Broker) (*sarama.DeleteRecordsResponse, error) { return b.DeleteRecords(req) })
	if err != nil {
		return err
	}
	if t := res.Topics[topic]; t != nil && t.Partitions[partition] != nil {
		if e := t.Partitions[partition].Err; e != sarama.ErrNoError {
			return e
		}
		return nil
	}
	return sarama.ErrIncompleteResponse
}

// since sets in starts, which are the beginnings, where partitions are read from when one of them is from an offset on: the others from the first record
// that has the time of what is there, or a later one. When nothing is there any more its time is not known, and they begin at their beginning.
func (d *driver) since(ctx context.Context, topic string, info topicInfo, partition int32, offset int64, starts, ends []int64) error {
	var first *entry
	err := d.read(ctx, topic, partition, offset, ends[partition], func(e entry) bool {
		first = &e
		return false
	})
	if err != nil {
		return err
	}
	starts[partition] = max(offset, starts[partition])
	if first == nil {
		return nil
	}
	later, err := d.offsets(ctx, topic, info, first.time.UnixMilli())
	if err != nil {
		return err
	}
	for i := range starts {
		if int32(i) == partition {
			starts[i] = first.offset
		} else {
			starts[i] = max(starts[i], later[i])
		}
	}
	return nil
}

// A cursor is where a browse stands in one partition.
type cursor struct {
	partition int32
	next      func() (entry, error, bool)
	e         entry
	err       error
}

func (c *cursor) advance() bool {
	e, err, ok := c.next()
	c.e, c.err = e, err
	return ok && err == nil
}

func (d *driver) records(ctx context.Context, topic string, partition int32, from, to int64) iter.Seq2[entry, error] {
	return drivers.Walk(func(yield func(entry) bool) error { return d.read(ctx, topic, partition, from, to, yield) })
}
