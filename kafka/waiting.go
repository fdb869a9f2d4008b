package kafka

import (
	"context"
	"iter"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/internal/drivers"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Waiting implements pubsub.Waiter: what lies in the tiers of a group and is not settled, as far as that is committed. Where the group stands is read before the
// ends of the tiers: so a message that is moved from one to the next meanwhile is in one of them at least.
//
// There is no more to it than looking. A log gives nothing up out of its turn: a copy that is due at once would leave the one in the tier where it is, for the member
// that has fetched it and waits with it; only that member could settle it.
func (d *driver) Waiting(ctx context.Context, topic, name string) iter.Seq2[pubsub.Waiting, error] {
	return drivers.Walk(func(yield func(pubsub.Waiting) bool) error {
		parts, err := d.tiersOf(ctx, topic, name)
		if err != nil {
			return err
		}
		for _, t := range parts {
			more := true
			err := d.read(ctx, t.topic, t.partition, t.from, t.end, func(e entry) bool {
				for _, r := range t.done {
					if e.offset >= r.from && e.offset <= r.to {
						return true
					}
				}
				more = yield(pubsub.Waiting{Record: pubsub.Record{Msg: decode(&e), Topic: topic}})
				return more
			})
			if err != nil || !more {
				return err
			}
		}
		return nil
	})
}

// A tierPart is a partition of a group's tiers: what of it is not settled.
type tierPart struct {
	topic     string
	partition int32
	from, end int64
	done      []run
}

func (d *driver) tiersOf(ctx context.Context, topic, name string) (all []tierPart, err error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	place, g, err := d.existing(ctx, topic, name)
	if err != nil {
		return nil, err
	}
	tiers := private(kindTiers, place)
	info, ok := g.topics[tiers]
	if !ok {
		return nil, nil
	}
	var at map[string]map[int32]*sarama.OffsetFetchResponseBlock
	err = again(ctx, func() error {
		at, err = d.committed(ctx, place, map[string][]int32{tiers: g.parts()[tiers]})
		return err
	})
	if err != nil {
		return nil, err
	}
	first, ends, err := d.limits(ctx, tiers, info)
	if err != nil {
		return nil, err
	}
	for p, end := range ends {
		t := tierPart{topic: tiers, partition: int32(p), from: g.start(tiers, info.id, int32(p)), end: end}
		if b := at[tiers][int32(p)]; b != nil && b.Offset >= 0 {
			t.from = b.Offset
			t.done = parseMark(t.from, b.Metadata).runs
		}
		if t.from = max(t.from, first[p]); t.from < t.end {
			all = append(all, t)
		}
	}
	return all, nil
}
