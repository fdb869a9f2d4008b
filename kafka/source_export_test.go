package kafka

import (
	"context"
	"errors"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Through lets n messages through a source, of responses of one partition that come again and again: each is taken, received and acked.
func Through(ctx context.Context, responses []*sarama.FetchResponseBlock, n int) error {
	m := &member{d: &driver{}, place: pubsub.Place{Topic: "t", Group: "g"}, solo: true, sources: map[pubsub.Place]*source{}}
	s := &source{m: m, ready: make(chan struct{}, 1), reader: reader{many: true}, spec: pubsub.SourceSpec{MaxInFlight: 4096, MaxInFlightBytes: 64 << 20}}
	m.sources[s.place] = s
	ln := m.newLane(unit{"t", 0})
	ln.src, s.mine = s, []*lane{ln}
	l := ln.logs[0]
	l.free = true
	f := &fetcher{m: m}
	buf, acks, errs := make([]pubsub.Record, 128), make([]pubsub.Settlement, 128), make([]error, 128)
	for next := 0; n > 0; {
		if len(l.pending) == 0 {
			b := responses[next%len(responses)]
			next++
			l.offset = b.RecordsSet[0].RecordBatch.FirstOffset
			f.one(l, b)
		}
		got, _, err := s.Recv(ctx, buf, s.spec.MaxInFlightBytes)
		for i := range got {
			acks[i] = pubsub.Settlement{Token: buf[i].Token, As: pubsub.SettleAck}
		}
		clear(errs)
		if err = errors.Join(err, s.Settle(ctx, acks[:got], errs[:got]), errors.Join(errs[:got]...)); err != nil {
			return err
		}
		n -= got
	}
	return nil
}
