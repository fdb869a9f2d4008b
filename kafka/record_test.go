package kafka_test

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/rcrowley/go-metrics"

	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

func roundTrip(m *pubsub.Message) *pubsub.Message {
	var key []byte
	if m.Key != "" {
		key = []byte(m.Key)
	}
	return kafka.Decode(key, m.Payload, kafka.HeadersOf(m), time.Time{})
}

func TestHeadersComeBack(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 2, 3, 4, 5, 6, 789_123_456, time.UTC)
	for _, m := range []pubsub.Message{
		{ID: "1", Time: at},
		{ID: "1", Time: at, Payload: []byte{}, Key: "k", Type: "t", ContentType: "c"},
		{ID: "1", Time: at, Headers: pubsub.Headers{{Name: "content-type", Value: "user's"}}},
		{ID: "1", Time: at, ContentType: "ours", Headers: pubsub.Headers{{Name: "content-type", Value: "user's"}}},
		{ID: "1", Time: at, Headers: pubsub.Headers{{Name: "omnibus-type", Value: "x"}, {Name: "omnibus-id", Value: "y"}}},
		{ID: "1", Time: at, Headers: pubsub.Headers{{Name: "omnibus-kinds", Value: "0=int"}}},
		{ID: "1", Time: at, Headers: pubsub.Headers{{Name: "", Value: "\x00\xff"}, {Name: "n", Kind: pubsub.HeaderNull}, {Name: "n"}, {Name: "i", Value: "7", Kind: pubsub.HeaderInt}}},
		{Time: at, Headers: pubsub.Headers{{Name: "omnibus-id", Value: "of a copy"}}},
	} {
		if got := roundTrip(&m); !reflect.DeepEqual(*got, m) {
			t.Errorf("%+v came back as %+v", m, *got)
		}
	}
}

func TestForeignHeaders(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(1_700_000_000_123)
	h := []sarama.RecordHeader{{Key: []byte("a"), Value: []byte("1")}, {Key: []byte("content-type"), Value: []byte("text/plain")}, {Key: []byte("n")}, {Key: []byte("e"), Value: []byte{}}}
	got := kafka.Decode([]byte("k"), nil, h, at)
	want := &pubsub.Message{
		Key: "k", Time: at, ContentType: "text/plain",
		Headers: pubsub.Headers{{Name: "a", Value: "1"}, {Name: "n", Kind: pubsub.HeaderNull}, {Name: "e"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestMetricsAreOff shows that the client, asked as it asks, gets metrics that count nothing: its own have a goroutine that nothing ends.
func TestMetricsAreOff(t *testing.T) {
	t.Parallel()
	if _, ok := metrics.GetOrRegisterMeter("m", kafka.Silent).(metrics.NilMeter); !ok {
		t.Error("a meter counts")
	}
	if _, ok := metrics.GetOrRegisterCounter("c", kafka.Silent).(metrics.NilCounter); !ok {
		t.Error("a counter counts")
	}
	histogram := func() metrics.Histogram { return metrics.NewHistogram(metrics.NewUniformSample(1)) }
	if _, ok := kafka.Silent.GetOrRegister("h", histogram).(metrics.NilHistogram); !ok {
		t.Error("a histogram counts")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("k"), []byte("v"), "omnibus-id", []byte("1"), "omnibus-kinds", []byte("0=int,9=x"), "a", []byte("b"))
	f.Fuzz(func(t *testing.T, key, value []byte, n1 string, v1 []byte, n2 string, v2 []byte, n3 string, v3 []byte) {
		h := []sarama.RecordHeader{{Key: []byte(n1), Value: v1}, {Key: []byte(n2), Value: v2}, {Key: []byte(n3), Value: v3}}
		m := kafka.Decode(key, value, h, time.Now())
		if m.ID == "" {
			return
		}
		again := roundTrip(m)
		if len(again.Headers) != len(m.Headers) || again.ID != m.ID || again.Type != m.Type || again.ContentType != m.ContentType {
			t.Errorf("%+v came back as %+v", m, again)
		}
	})
}

// TestSmallPayloadIsCopied: a message that waits must not keep the response in which it came. Null stays null, and empty empty.
func TestSmallPayloadIsCopied(t *testing.T) {
	t.Parallel()
	response := []byte("a small payload")
	m := kafka.Decode(nil, response, nil, time.Time{})
	response[0] = 'X'
	if string(m.Payload) != "a small payload" {
		t.Errorf("the payload is %q: it is part of the response still", m.Payload)
	}
	if m := kafka.Decode(nil, nil, nil, time.Time{}); m.Payload != nil {
		t.Errorf("null became %q", m.Payload)
	}
	if m := kafka.Decode(nil, []byte{}, nil, time.Time{}); m.Payload == nil {
		t.Error("an empty payload became null")
	}
}

// TestFetchSharesNothing: what a handler appends to one message, or writes into it, changes no other message of its fetch.
func TestFetchSharesNothing(t *testing.T) {
	t.Parallel()
	for _, size := range []int{10, 5000} { // copied, and a part of the response still
		b := batchAt(5, 7, 3)
		for i, r := range b.Records {
			r.Key, r.Value = fmt.Append(nil, "key ", i), bytes.Repeat(fmt.Append(nil, i), size)
			r.Headers = []*sarama.RecordHeader{{Key: []byte("n"), Value: fmt.Append(nil, "value ", i)}}
		}
		res, err := fetched(t, b)
		if err != nil {
			t.Fatal(err)
		}
		all := kafka.Messages(res.GetBlock("t", 0))
		for i, m := range all {
			_ = append(m.Payload, bytes.Repeat([]byte("x"), 2*size)...)
			_ = append(m.Headers, pubsub.Header{Name: "more"})
			if want := bytes.Repeat(fmt.Append(nil, i), size); !bytes.Equal(m.Payload, want) || m.Key != fmt.Sprint("key ", i) || !slices.Equal(m.Headers, pubsub.Headers{{Name: "n", Value: fmt.Sprint("value ", i)}}) {
				t.Errorf("message %d of %d bytes is %.20q with the key %q and the headers %v", i, size, m.Payload, m.Key, m.Headers)
			}
			clear(m.Payload)
			m.Headers[0] = pubsub.Header{}
		}
		if len(all) != 3 {
			t.Errorf("%d messages came", len(all))
		}
	}
}
