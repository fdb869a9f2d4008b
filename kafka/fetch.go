package kafka

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"reflect"
	"slices"
	"time"

	"github.com/IBM/sarama"
)

// An entry is a record that was fetched.
type entry struct {
	rec    *sarama.Record
	time   time.Time // zero in old formats
	offset int64
	bytes  int64 // its size
}

// timeOf is a record's timestamp.
func timeOf(b *sarama.RecordBatch, r *sarama.Record) time.Time {
	if b.LogAppendTime {
		return b.MaxTimestamp
	}
	return b.FirstTimestamp.Add(r.TimestampDelta)
}

// recordCost and headerCost are about what the client needs in memory for a record and for each of its headers, besides their bytes.
const (
	recordCost = 128
	headerCost = 56
)

// sizeOf is about how much memory a record holds.
func sizeOf(r *sarama.Record) int64 {
	n := recordCost + len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += headerCost + len(h.Key) + len(h.Value)
	}
	return int64(n)
}

// parse takes the records of a partition out of a response, from an offset on: none of aborted transactions, and none that are the broker's own.
// next is where to go on.
func parse(b *sarama.FetchResponseBlock, from int64, committed bool) (all []entry, next int64) {
	next = from
	aborted := slices.Clone(b.AbortedTransactions)
	slices.SortFunc(aborted, func(x, y *sarama.AbortedTransaction) int { return int(x.FirstOffset - y.FirstOffset) })
	gone := map[int64]struct{}{} // producers whose transaction was aborted
	n := 0
	for _, set := range b.RecordsSet {
		if set.RecordBatch != nil {
			n += len(set.RecordBatch.Records)
		}
	}
	all = make([]entry, 0, n)
	for _, set := range b.RecordsSet {
		if set.MsgSet != nil {
			all, next = parseOld(set.MsgSet, all, next)
			continue
		}
		batch := set.RecordBatch
		if batch == nil {
			continue
		}
		if batch.PartialTrailingRecord { // cut at the end of the response; what lay before it is here or gone
			next = max(next, batch.FirstOffset)
			continue
		}
		for len(aborted) > 0 && aborted[0].FirstOffset <= batch.LastOffset() {
			gone[aborted[0].ProducerID] = struct{}{}
			aborted = aborted[1:]
		}
		_, dropped := gone[batch.ProducerID]
		switch {
		case batch.Control:
			if len(batch.Records) > 0 && len(batch.Records[0].Key) >= 4 && binary.BigEndian.Uint16(batch.Records[0].Key[2:]) == 0 {
				delete(gone, batch.ProducerID) // the end of that transaction
			}
		case batch.IsTransactional && dropped && committed:
		default:
			for _, r := range batch.Records {
				if offset := batch.FirstOffset + r.OffsetDelta; offset >= next {
					all = append(all, entry{rec: r, time: timeOf(batch, r), offset: offset, bytes: sizeOf(r)})
				}
			}
		}
		next = max(next, batch.LastOffset()+1)
	}
	if len(b.RecordsSet) == 0 {
		next = max(next, behind(b))
	}
	return all, next
}

// behind is the offset behind batches from which all records were compacted away, -1 if none came. The client drops them, and keeps this where only it
// looks. Nothing else tells them from a broker that sent nothing yet, behind which there may be messages.
func behind(b *sarama.FetchResponseBlock) int64 {
	f := reflect.ValueOf(b).Elem().FieldByName("recordsNextOffset")
	if f.Kind() != reflect.Pointer || f.IsNil() || f.Elem().Kind() != reflect.Int64 {
		return -1
	}
	return f.Elem().Int()
}

// parseOld reads the message formats before version 0.11.
func parseOld(set *sarama.MessageSet, all []entry, next int64) ([]entry, int64) {
	for _, block := range set.Messages {
		inner := block.Messages()
		for _, m := range inner {
			offset := m.Offset
			if m.Msg.Version >= 1 && block.Msg.Set != nil { // of a compressed set they count from its end
				offset += block.Offset - inner[len(inner)-1].Offset
			}
			if offset >= next {
				r := &sarama.Record{Key: m.Msg.Key, Value: m.Msg.Value}
				all = append(all, entry{rec: r, offset: offset, bytes: sizeOf(r)})
				next = offset + 1
			}
		}
	}
	return all, next
}

// fetchRequest asks for some partitions.
func (d *driver) fetchRequest(wait time.Duration) *sarama.FetchRequest {
	return &sarama.FetchRequest{
		Version: 12, MaxWaitTime: int32(wait / time.Millisecond), MinBytes: 1, MaxBytes: maxFetch, Isolation: d.isolation(), SessionEpoch: -1,
	}
}

const maxFetch = 50 << 20 // of one response

// read calls f with the records of a partition from an offset on, up to another, until it returns false. What is not there any more is left out.
func (d *driver) read(ctx context.Context, topic string, partition int32, from, to int64, f func(entry) bool) error {
	for tries := 0; from < to; {
		info, ok, err := d.known(ctx, topic)
		if err == nil && (!ok || partition >= info.n()) {
			err = sarama.ErrUnknownTopicOrPartition
		}
		if err != nil {
			return err
		}
		address, err := d.addressOf(info.parts[partition].leader)
		var b *sarama.FetchResponseBlock
		if err == nil {
			req := d.fetchRequest(10 * time.Millisecond)
			req.AddBlock(topic, partition, from, 1<<20, -1)
			var res *sarama.FetchResponse
			res, err = at(ctx, d, address, func(b *sarama.Broker) (*sarama.FetchResponse, error) { return b.Fetch(req) })
			if err != nil {
				return err
			}
			if b = res.GetBlock(topic, partition); b == nil {
				return sarama.ErrIncompleteResponse
			}
			if b.Err != sarama.ErrNoError {
				err = b.Err
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, sarama.ErrOffsetOutOfRange):
			first, err := d.offsets(ctx, topic, info, sarama.OffsetOldest)
			if err != nil {
				return err
			}
			if first[partition] <= from {
				return nil
			}
			from = first[partition]
			continue
		default: // a leader may be elected at the moment
			if tries++; tries > 20 || !pause(ctx, 50*time.Millisecond) {
				return err
			}
			d.forget(topic)
			continue
		}
		all, next := parse(b, from, !d.cfg.ReadAll)
		for _, e := range all {
			if e.offset >= to || !f(e) {
				return nil
			}
		}
		if next > from {
			from, tries = next, 0
			continue
		}
		if b.LastStableOffset <= from || len(b.RecordsSet) > 0 {
			return nil
		}
		if tries++; tries > 20 || !pause(ctx, 50*time.Millisecond) { // the broker has not read it in time
			return cmp.Or(ctx.Err(), error(sarama.ErrRequestTimedOut))
		}
	}
	return nil
}
