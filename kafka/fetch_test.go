package kafka_test

import (
	"encoding/binary"
	"io"
	"net"
	"reflect"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/kafka"
)

// fetched is what the client makes of batches that a broker sends.
func fetched(t *testing.T, batches ...*sarama.RecordBatch) (*sarama.FetchResponse, error) {
	t.Helper()
	block := &sarama.FetchResponseBlock{HighWaterMarkOffset: 100, LastStableOffset: 100}
	for _, b := range batches {
		block.RecordsSet = append(block.RecordsSet, &sarama.Records{RecordBatch: b})
	}
	server := sarama.NewMockBroker(t, 1)
	t.Cleanup(server.Close)
	server.SetHandlerByMap(map[string]sarama.MockResponse{
		"ApiVersionsRequest": sarama.NewMockApiVersionsResponse(t),
		"FetchRequest": sarama.NewMockWrapper(&sarama.FetchResponse{
			Version: 12, Blocks: map[string]map[int32]*sarama.FetchResponseBlock{"t": {0: block}},
		}),
	})
	conf := sarama.NewConfig()
	conf.Version = sarama.V2_7_0_0
	conf.ApiVersionsRequest = false
	client := sarama.NewBroker(server.Addr())
	if err := client.Open(conf); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	req := &sarama.FetchRequest{Version: 12, MinBytes: 1, MaxBytes: 1 << 20, SessionEpoch: -1}
	req.AddBlock("t", 0, 5, 1<<20, -1)
	return client.Fetch(req)
}

func batchAt(from, to int64, records int) *sarama.RecordBatch {
	b := &sarama.RecordBatch{Version: 2, FirstOffset: from, LastOffsetDelta: int32(to - from), ProducerID: -1}
	for i := range records {
		b.Records = append(b.Records, &sarama.Record{OffsetDelta: int64(i), Value: []byte("x")})
	}
	return b
}

// TestWhereAFetchEnds: only what came is passed over. A broker that has not read a part of a log in time answers without any records, and without an error.
func TestWhereAFetchEnds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		batches []*sarama.RecordBatch
		records int
		next    int64
	}{
		{"nothing came", nil, 0, 5},
		{"all was compacted away", []*sarama.RecordBatch{batchAt(5, 9, 0), batchAt(10, 19, 0)}, 0, 20},
		{"the end was compacted away", []*sarama.RecordBatch{batchAt(5, 9, 2)}, 2, 10},
		{"the beginning was compacted away", []*sarama.RecordBatch{batchAt(5, 9, 0), batchAt(12, 14, 3)}, 3, 15},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			res, err := fetched(t, c.batches...)
			if err != nil {
				t.Fatal(err)
			}
			if n, next := kafka.Parse(res.GetBlock("t", 0), 5); n != c.records || next != c.next {
				t.Errorf("%d records, and it goes on at %d, want %d and %d", n, next, c.records, c.next)
			}
		})
	}
}

// TestAnswerThatMakesNoSense tells it from a connection that breaks: the one stops a partition, the other is made again.
func TestAnswerThatMakesNoSense(t *testing.T) {
	t.Parallel()
	for name, nonsense := range map[string]bool{"nonsense": true, "nothing": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = server.Close() }()
			go func() {
				c, err := server.Accept()
				if err != nil {
					return
				}
				defer func() { _ = c.Close() }()
				var size [4]byte
				if _, err := io.ReadFull(c, size[:]); err != nil {
					return
				}
				req := make([]byte, binary.BigEndian.Uint32(size[:]))
				if _, err := io.ReadFull(c, req); err != nil || !nonsense {
					return
				}
				answer := append([]byte{0, 0, 0, 25}, req[4:8]...) // the request's number
				_, _ = c.Write(append(answer, "\x00no such answer ....."...))
				_, _ = io.Copy(io.Discard, c) // until the client hangs up
			}()
			bad, err := kafka.FetchFrom(t.Context(), server.Addr().String())
			if err == nil || bad != nonsense {
				t.Errorf("the fetch ended with %v, taken for unreadable: %v", err, bad)
			}
		})
	}
}

// TestCutBatchWaits lets a broker send a batch alone whose records are cut inside: it is asked again later, not at once for ever.
func TestCutBatchWaits(t *testing.T) {
	t.Parallel()
	cut := batchAt(5, 9, 0)
	cut.PartialTrailingRecord = true
	b := &sarama.FetchResponseBlock{HighWaterMarkOffset: 100, LastStableOffset: 100, RecordsSet: []*sarama.Records{{RecordBatch: cut}}}
	if kafka.Broken(b, 1) || !kafka.Broken(b, 2) {
		t.Error("a batch that is cut inside is to stop its partition when it came alone, and only then")
	}
	if b.RecordsSet = nil; kafka.Broken(b, 9) {
		t.Error("a broker that has nothing yet stopped a partition")
	}
}

// TestEmptyRecordsTakeRoom: what is fetched and waits is bounded by its size, also when there is nothing in it.
func TestEmptyRecordsTakeRoom(t *testing.T) {
	t.Parallel()
	if n := kafka.SizeOf(nil, 0); n < 100 {
		t.Errorf("an empty record counts as %d bytes", n)
	}
	if n, more := kafka.SizeOf(make([]byte, 1000), 0), kafka.SizeOf(make([]byte, 1000), 3); n < 1000 || more-n < 100 {
		t.Errorf("a record of 1000 bytes counts as %d, with three headers as %d", n, more)
	}
}

// TestFetchesAskApart: what is sent to the group alone, which is empty most of the time, is in no fetch for the topic. One that waits for a partition at its end
// while another is full, which will have room soon, does not wait for long, unless that goes on.
func TestFetchesAskApart(t *testing.T) {
	t.Parallel()
	own := []string{"omnibus.retry.t__g0", "omnibus.retry.t__g1"}
	topics, waits := kafka.Asks(false, 1)
	if want := map[bool][]string{false: {"t0", "t1"}, true: own}; !reflect.DeepEqual(topics, want) || waits[0] != 250*time.Millisecond {
		t.Errorf("with room everywhere %v are asked for, for %v", topics, waits)
	}
	topics, waits = kafka.Asks(true, 8)
	if want := map[bool][]string{false: {"t1"}, true: own}; !reflect.DeepEqual(topics, want) {
		t.Errorf("with one partition full %v are asked for", topics)
	}
	want := []time.Duration{5, 10, 20, 40, 80, 160, 250, 250}
	for i := range want {
		want[i] *= time.Millisecond
	}
	if !reflect.DeepEqual(waits, want) {
		t.Errorf("fetches that bring nothing wait %v, want %v", waits, want)
	}
}
