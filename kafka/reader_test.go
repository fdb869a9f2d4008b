package kafka_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

// TestTimes reads times one after the other: what is kept of one must not go into the next.
func TestTimes(t *testing.T) {
	t.Parallel()
	texts := []string{
		"2026-02-03T04:05:06.789123456Z", "2026-02-03T04:05:06.7Z", "2026-02-03T04:05:06Z", "2026-02-03T04:05:06.000000001Z", "2026-02-03T04:05:07.1Z",
		"2026-02-03T04:05:07.1+02:00", "2026-02-03T04:05:07.1Z", "2026-02-03T06:05:07.2+02:00", "2026-02-03T04:05:07.2Z", "2026-02-03T04:05:07.Z",
		"2026-02-03T04:05:07.1234567890Z", "2026-02-03T04:05:07.1x3Z", "2026-02-03T04:05:07", "2026-02-03T04:05:0", "", "Z", "x", ".5Z", "2026-02-03T04:05:07.5Z",
		"1969-12-31T23:59:59.5Z", "0001-01-01T00:00:00Z", "2026-02-03T04:05:07,5Z",
	}
	for i, got := range kafka.Times(texts...) {
		want, err := time.Parse(time.RFC3339Nano, texts[i])
		if err != nil {
			want = time.Time{}
		}
		if !got.Equal(want) || got.Format(time.RFC3339Nano) != want.Format(time.RFC3339Nano) {
			t.Errorf("%q behind %q is %v, want %v", texts[i], texts[max(i-1, 0)], got, want)
		}
	}
}

// TestMessagesShareNothing reads many messages, and writes into the payloads of all.
func TestMessagesShareNothing(t *testing.T) {
	t.Parallel()
	var payloads [][]byte
	for _, size := range []int{0, 1, 256, 4096, 4097, 100_000} {
		for range 70 {
			payloads = append(payloads, make([]byte, size))
		}
	}
	payloads = append(payloads, nil)
	all := kafka.DecodeAll(payloads...)
	for i, m := range all {
		if len(m.Payload) != len(payloads[i]) || (m.Payload == nil) != (payloads[i] == nil) {
			t.Errorf("a payload of %d bytes became %d", len(payloads[i]), len(m.Payload))
		}
		for k := range m.Payload {
			m.Payload[k] = byte(i)
		}
		m.Payload = append(m.Payload, 0xff)
		m.Headers.Add("more", "of it")
	}
	for i, m := range all {
		if want := append(bytes.Repeat([]byte{byte(i)}, len(payloads[i])), 0xff); !bytes.Equal(m.Payload, want) {
			t.Errorf("payload %d has others' bytes", i)
		}
		if m.Key != fmt.Sprint("key", i) || m.Headers.Get(fmt.Sprint("name", i)) != fmt.Sprint("value", i) || len(m.Headers) != 2 {
			t.Errorf("message %d has the key %q and the headers %v", i, m.Key, m.Headers)
		}
	}
}

// BenchmarkSource is what the adapter does to a message between the client's decoder and the engine, and back.
func BenchmarkSource(b *testing.B) {
	const responses, each = 64, 2000
	var list []*sarama.FetchResponseBlock
	for i := range responses {
		batch := &sarama.RecordBatch{FirstOffset: int64(i * each), LastOffsetDelta: each - 1, FirstTimestamp: time.Now()}
		for k := range each {
			m := pubsub.Message{ID: fmt.Sprintf("%022d", i*each+k), Time: batch.FirstTimestamp.Add(time.Duration(k)), ContentType: "application/octet-stream"}
			r := &sarama.Record{OffsetDelta: int64(k), Value: make([]byte, 256)}
			for _, h := range kafka.HeadersOf(&m) {
				r.Headers = append(r.Headers, &h)
			}
			batch.Records = append(batch.Records, r)
		}
		list = append(list, &sarama.FetchResponseBlock{RecordsSet: []*sarama.Records{{RecordBatch: batch}}})
	}
	b.ReportAllocs()
	b.ResetTimer()
	if err := kafka.Through(b.Context(), list, b.N); err != nil {
		b.Fatal(err)
	}
}
