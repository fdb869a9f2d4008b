package kafka_test

import (
	"testing"

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
