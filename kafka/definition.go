package kafka

import (
	"context"
	"encoding/json"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A definition describes a group. It is the first record of the group's quarantine: of several members that make the group at once the first one
// has its way, and where the group begins is known for as long as it is there, also when its offsets have expired.
type definition struct {
	AckWait   time.Duration      `json:"ack_wait"`
	Exclusive bool               `json:"exclusive"`
	Start     map[string][]int64 `json:"start"`            // offsets by topic and partition; what is missing begins at its beginning
	Topics    map[string]string  `json:"topics,omitempty"` // the ids that these topics had

	of sarama.Uuid // the topic where it stands
}

// start is the offset at which the group begins to read a partition, -1 for the first there is. A topic that was made again is read as a whole.
func (g *definition) start(topic string, id sarama.Uuid, partition int32) int64 {
	if was, ok := g.Topics[topic]; ok && id != (sarama.Uuid{}) && was != id.String() { // brokers before 2.8 have no ids
		return -1
	}
	if list := g.Start[topic]; int(partition) < len(list) {
		return list[partition]
	}
	return -1
}

// define reads a group's definition, after writing one if there is none.
func (d *driver) define(ctx context.Context, place pubsub.Place, spec pubsub.SourceSpec, m pubsub.Manage, read map[string]topicInfo, in topicInfo) (*definition, error) {
	d.mu.Lock()
	def := d.groups[place]
	d.mu.Unlock()
	if def != nil && def.of == in.id {
		return def, nil
	}
	topic := private(kindQuarantine, place)
	def, err := d.readDefinition(ctx, topic)
	if err == nil && def == nil {
		if m != pubsub.Create {
			return nil, says(pubsub.ErrNotFound, "there is no group %q of %q", place.Group, place.Topic)
		}
		mine := definition{AckWait: spec.AckWait, Exclusive: spec.Order.Exclusive()}
		if mine.Start, err = d.startOffsets(ctx, spec.Start, read); err != nil {
			return nil, err
		}
		mine.Topics = idsOf(mine.Start, read)
		text, err := json.Marshal(mine)
		if err != nil {
			return nil, err
		}
		if err := d.append(ctx, topic, text); err != nil {
			return nil, err
		}
		if def, err = d.readDefinition(ctx, topic); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	if def == nil {
		return nil, says(pubsub.ErrConflict, "the topic %q does not begin with the description of group %q", topic, place.Group)
	}
	def.of = in.id
	d.mu.Lock()
	d.groups[place] = def
	d.mu.Unlock()
	return def, nil
}

// idsOf are the ids of the topics that have a start.
func idsOf(start map[string][]int64, read map[string]topicInfo) map[string]string {
	ids := map[string]string{}
	for name := range start {
		if id := read[name].id; id != (sarama.Uuid{}) {
			ids[name] = id.String()
		}
	}
	return ids
}

// readDefinition returns nil if nothing has been written.
func (d *driver) readDefinition(ctx context.Context, topic string) (*definition, error) {
	var def *definition
	err := d.read(ctx, topic, 0, 0, 1, func(e entry) bool {
		if isDefinition(e.rec) {
			def = new(definition)
			if json.Unmarshal(e.rec.Value, def) != nil {
				def = nil
			}
		}
		return false
	})
	return def, err
}

func isDefinition(r *sarama.Record) bool {
	return len(r.Headers) == 1 && string(r.Headers[0].Key) == hdrGroup
}

// append writes a definition.
func (d *driver) append(ctx context.Context, topic string, text []byte) error {
	info, ok, err := d.known(ctx, topic)
	if err != nil {
		return err
	}
	if !ok {
		return sarama.ErrUnknownTopicOrPartition
	}
	address, err := d.addressOf(info.parts[0].leader)
	if err != nil {
		return err
	}
	now := time.Now()
	req := &sarama.ProduceRequest{RequiredAcks: sarama.WaitForAll, Timeout: int32(answerWithin / time.Millisecond), Version: 7}
	req.AddBatch(topic, 0, &sarama.RecordBatch{
		Version: 2, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, FirstTimestamp: now, MaxTimestamp: now,
		Records: []*sarama.Record{{Value: text, Headers: []*sarama.RecordHeader{{Key: []byte(hdrGroup), Value: []byte("1")}}}},
	})
	res, err := at(ctx, d, address, func(b *sarama.Broker) (*sarama.ProduceResponse, error) { return b.Produce(req) })
	if err != nil {
		return err
	}
	if b := res.GetBlock(topic, 0); b != nil && b.Err != sarama.ErrNoError {
		return b.Err
	}
	return nil
}
