package kafka

import (
	"context"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A Leader is a session whose only leader is the test itself: it reads what would be sent, and answers by hand.
type Leader struct {
	d       *driver
	p       *producer
	o       *outlet
	sending []shipment
	told    []pubsub.Result
}

// NewLeader leads the partitions 0 to n-1 of a topic.
func NewLeader(tb testing.TB, topic string, n int) *Leader {
	tb.Helper()
	l := &Leader{d: &driver{topics: map[string]topicInfo{topic: {parts: make([]partInfo, n), seen: time.Now()}}, limit: 1 << 20}}
	l.p = &producer{
		d: l.d, ack: sarama.WaitForAll, id: 7, lost: make(chan struct{}, 1), parts: map[unit]*outpart{}, outlets: map[int32]*outlet{},
		report: func(rs []pubsub.Result) { l.told = append(l.told, rs...) },
	}
	l.p.life, l.p.cut = context.WithCancel(tb.Context())
	tb.Cleanup(l.p.cut)
	l.o = &outlet{p: l.p, kick: make(chan struct{}, 1)}
	l.p.outlets[0] = l.o
	return l
}

// Send publishes a message.
func (l *Leader) Send(ctx context.Context, seq uint64, to pubsub.Place, key string) error {
	_, err := l.p.Send(ctx, []pubsub.Out{{Seq: seq, To: to, Msg: &pubsub.Message{Key: key}}})
	return err
}

// Turn says how many messages without a key were sent before.
func (l *Leader) Turn(n int32) { l.p.turn = n }

// A SentBatch is what comes for one partition.
type SentBatch struct {
	First int32 // sequence number
	Seqs  []uint64
}

// Receive returns what is sent now, by partition.
func (l *Leader) Receive() map[int32]SentBatch {
	l.p.mu.Lock()
	for _, x := range l.p.parts { // it leads again what it did not answer well
		x.leader, x.again = 0, time.Time{}
		l.o.add(x)
	}
	l.p.mu.Unlock()
	_, l.sending = l.o.request()
	all := map[int32]SentBatch{}
	for _, s := range l.sending {
		b := SentBatch{First: s.first}
		for _, m := range s.batch {
			b.Seqs = append(b.Seqs, m.seq)
		}
		all[s.x.partition] = b
	}
	return all
}

// Answer answers what was received last: an error for each partition that is named, success for the others.
func (l *Leader) Answer(topic string, faults map[int32]sarama.KError) {
	res := &sarama.ProduceResponse{Version: 8}
	for _, s := range l.sending {
		res.AddTopicPartition(topic, s.x.partition, faults[s.x.partition])
	}
	l.o.take(res, nil, true, l.sending)
}

// Break ends the connection: after the request was sent, or before.
func (l *Leader) Break(sent bool, err error) { l.o.take(nil, err, sent, l.sending) }

// Vanish lets the topic be away for long enough.
func (l *Leader) Vanish() {
	l.p.mu.Lock()
	var told []pubsub.Result
	for _, x := range l.p.parts {
		told = append(told, l.p.vanished(x)...)
	}
	l.p.mu.Unlock()
	l.p.tell(told)
}

// Err is the error of the first fate that was told since the last call of Fates.
func (l *Leader) Err() error {
	for _, r := range l.told {
		return r.Err
	}
	return nil
}

// Fates are those that were told since the last call, by number.
func (l *Leader) Fates() map[uint64]pubsub.Fate {
	all := map[uint64]pubsub.Fate{}
	for _, r := range l.told {
		all[r.Seq] = r.Fate
	}
	l.told = nil
	return all
}
