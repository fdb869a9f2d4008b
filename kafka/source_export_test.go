package kafka

import (
	"context"
	"errors"
	"time"

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

// Follow reads a partition for a while, as a live tail does.
func Follow(ctx context.Context, d pubsub.Driver, topic string, long time.Duration) {
	m := d.(*driver).newMember(memberKey{}, pubsub.Place{Topic: topic, Group: pubsub.Broadcast}, &group{}, nil)
	s := &source{m: m, place: pubsub.Place{Topic: topic, Group: pubsub.Broadcast}, ready: make(chan struct{}, 1), spec: pubsub.SourceSpec{MaxInFlight: 10, MaxInFlightBytes: 1 << 20}}
	m.mu.Lock()
	m.sources[s.place] = s
	ln := m.newLane(unit{topic, 0})
	m.lanes[ln.unit] = ln
	m.gain(ln, s)
	m.mu.Unlock()
	m.working.Add(1)
	go m.locate()
	pause(ctx, long)
	m.die(errGone)
	m.working.Wait()
}

// Woken says whether a source for which there is no room, since another one of its member holds all of it, looks again when that one loses what it holds.
func Woken(how string) bool {
	m := &member{
		d: &driver{}, place: pubsub.Place{Topic: "t", Group: "g"}, def: &group{definition: &definition{}}, lanes: map[unit]*lane{}, sources: map[pubsub.Place]*source{},
		dirty: make(chan struct{}, 1), look: make(chan struct{}, 1), lost: make(chan struct{}, 1), news: make(chan struct{}),
	}
	const all = 4
	add := func(p pubsub.Place) *source {
		s := &source{m: m, place: p, ready: make(chan struct{}, 1), spec: pubsub.SourceSpec{MaxInFlight: all, AllInFlight: all}}
		m.sources[p] = s
		return s
	}
	main, other := add(m.place), add(pubsub.Place{Topic: "t", Group: "g", Kind: pubsub.PlaceRetry, Tier: time.Second})
	ln := m.newLane(unit{"t", 0})
	m.lanes[ln.unit] = ln
	m.gain(ln, main)
	l := ln.logs[0]
	l.begin(0, mark{}, false)
	for i := range int64(all) {
		l.pending = append(l.pending, entry{rec: &sarama.Record{}, offset: i, bytes: 1})
	}
	buf := make([]pubsub.Record, all)
	m.mu.Lock()
	main.fill(buf, 1<<20)
	other.fill(buf[:1:1], 1<<20)
	select {
	case <-other.ready:
	default:
	}
	switch how {
	case "topic gone":
		m.vanish(ln)
	case "lane lost":
		m.drop(ln)
	}
	m.mu.Unlock()
	settle := pubsub.Settlement{Token: buf[0].Token, As: pubsub.SettleAck}
	switch how {
	case "handed back":
		settle.As = pubsub.SettleRelease
		fallthrough
	case "acked":
		_ = main.Settle(context.Background(), []pubsub.Settlement{settle}, make([]error, 1))
	case "closed":
		_ = main.Close(context.Background())
	}
	select {
	case <-other.ready:
		return true
	default:
		return false
	}
}
