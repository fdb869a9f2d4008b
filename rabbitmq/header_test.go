package rabbitmq_test

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/rabbitmq"
)

// arrived is what a consumer gets of a message. In a stream the broker keeps texts, and gives back as bytes what is no UTF-8.
func arrived(p amqp.Publishing, stream bool) *amqp.Delivery {
	h := amqp.Table{}
	for name, v := range p.Headers {
		if s, ok := v.(string); ok && stream && strings.ToValidUTF8(s, "") != s {
			v = []byte(s)
		}
		h[name] = v
	}
	h["x-delivery-count"], h["x-death"] = int64(3), []any{amqp.Table{"queue": "q"}} // the broker's
	at := time.Unix(p.Timestamp.Unix(), 0)
	if p.Timestamp.IsZero() {
		at = time.Time{}
	}
	return &amqp.Delivery{Headers: h, MessageId: p.MessageId, Type: p.Type, ContentType: p.ContentType, Timestamp: at, Body: p.Body}
}

// legal says what the protocol cannot carry.
func legal(t *testing.T, p amqp.Publishing) {
	t.Helper()
	for _, s := range []string{p.MessageId, p.Type, p.ContentType} {
		if len(s) > 255 {
			t.Errorf("a property of %d bytes", len(s))
		}
	}
	for name := range p.Headers {
		if len(name) > 255 || name == "" {
			t.Errorf("a header name of %d bytes", len(name))
		}
	}
	if err := p.Headers.Validate(); err != nil {
		t.Error(err)
	}
}

func roundTrip(t *testing.T, m *pubsub.Message) {
	t.Helper()
	for _, stream := range []bool{false, true} {
		p := rabbitmq.Encode(m, stream)
		legal(t, p)
		got := rabbitmq.Decode(arrived(p, stream))
		if len(got.Headers) == 0 && len(m.Headers) == 0 {
			got.Headers = m.Headers
		}
		if !got.Time.Equal(m.Time) {
			t.Errorf("stream %v: time %v, want %v", stream, got.Time, m.Time)
		}
		got.Time = m.Time
		if !reflect.DeepEqual(got, m) {
			t.Errorf("stream %v:\n%.2000q, want\n%.2000q", stream, fmt.Sprint(*got), fmt.Sprint(*m))
		}
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("long ", 60)
	awkward := []string{
		"plain", "", " blanks ", "a,b;int", "%41 %", "ümläut ✓", "nul\x00", "\xff\xfe", long, "CC", "BCC", "x-death", "x-delivery-count", "omnibus.ns",
		"omnibus.h0", "omnibus-attempts", "x-match", "x-first-death-queue", strings.Repeat("n", 255), strings.Repeat("n", 256),
	}
	at := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
	roundTrip(t, &pubsub.Message{})
	roundTrip(t, &pubsub.Message{Payload: []byte{}, Time: at})
	roundTrip(t, &pubsub.Message{Payload: []byte("x"), Time: time.Date(1900, 1, 1, 0, 0, 0, 1, time.UTC)})
	for _, s := range awkward {
		roundTrip(t, &pubsub.Message{ID: s, Type: s, Key: s, ContentType: s, Payload: []byte(s), Time: at})
		roundTrip(t, &pubsub.Message{Headers: pubsub.Headers{{Name: s, Value: s}}})
		roundTrip(t, &pubsub.Message{Headers: pubsub.Headers{{Name: s, Value: "1"}, {Name: "b", Value: s}, {Name: s, Value: "3"}, {Name: "a", Value: ""}}})
		for kind := range pubsub.HeaderNative + 1 {
			roundTrip(t, &pubsub.Message{Headers: pubsub.Headers{{Name: "a", Value: s, Kind: kind}}})
		}
	}
	kinds := pubsub.Headers{
		{Name: "null", Kind: pubsub.HeaderNull}, {Name: "int", Value: "-9223372036854775808", Kind: pubsub.HeaderInt}, {Name: "int", Value: "007", Kind: pubsub.HeaderInt},
		{Name: "float", Value: "3.25", Kind: pubsub.HeaderFloat}, {Name: "float", Value: "NaN", Kind: pubsub.HeaderFloat}, {Name: "bool", Value: "false", Kind: pubsub.HeaderBool},
		{Name: "time", Value: "2001-02-03T04:05:06Z", Kind: pubsub.HeaderTime}, {Name: "time", Value: "2001-02-03T04:05:06.7Z", Kind: pubsub.HeaderTime},
		{Name: "native", Value: `{"F":{"a":{"A":[{"l":"1"},{"V":""}]}}}`, Kind: pubsub.HeaderNative},
	}
	roundTrip(t, &pubsub.Message{Headers: kinds})
	for i := range kinds {
		roundTrip(t, &pubsub.Message{Headers: kinds[i : i+1]})
	}
}

// What another client looks for it finds where it looks: properties, and typed entries of the table.
func TestEncodeForOthers(t *testing.T) {
	t.Parallel()
	p := rabbitmq.Encode(&pubsub.Message{
		ID: "id", Type: "made", ContentType: "text/plain", Key: "k", Payload: []byte("p"), Time: time.Unix(7, 8),
		Headers: pubsub.Headers{
			{Name: "text", Value: "v"}, {Name: "int", Value: "7", Kind: pubsub.HeaderInt}, {Name: "bool", Value: "true", Kind: pubsub.HeaderBool},
			{Name: "float", Value: "2.5", Kind: pubsub.HeaderFloat}, {Name: "null", Kind: pubsub.HeaderNull}, {Name: "time", Value: "1970-01-01T00:00:09Z", Kind: pubsub.HeaderTime},
			{Name: "table", Value: `{"F":{"n":{"I":"1"}}}`, Kind: pubsub.HeaderNative},
		},
	}, false)
	if p.MessageId != "id" || p.Type != "made" || p.ContentType != "text/plain" || p.Timestamp.Unix() != 7 || p.DeliveryMode != amqp.Persistent {
		t.Errorf("properties %+v", p)
	}
	for name, want := range map[string]any{
		"text": "v", "int": int32(7), "bool": true, "float": 2.5, "null": nil, "table": amqp.Table{"n": int32(1)}, "omnibus.key": "k",
	} {
		if got, ok := p.Headers[name]; !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %#v, want %#v", name, got, want)
		}
	}
	if at, ok := p.Headers["time"].(time.Time); !ok || at.Unix() != 9 {
		t.Errorf("time is %#v", p.Headers["time"])
	}
}

func TestDecodeForeign(t *testing.T) {
	t.Parallel()
	m := rabbitmq.Decode(&amqp.Delivery{
		MessageId: "id", Type: "t", ContentType: "c", ReplyTo: "answers", CorrelationId: "7", Timestamp: time.Unix(7, 0), Body: []byte("b"),
		Headers: amqp.Table{
			"s": "v", "b": int8(-1), "B": uint8(1), "h": int16(-2), "u": uint16(2), "I": int32(-3), "i": uint32(3), "l": int64(-4), "f": float32(1.1), "d": 2.5, "t": true, "v": nil,
			"T": time.Unix(9, 0), "x": []byte{0, 255}, "D": amqp.Decimal{Scale: 2, Value: 314},
			"x-death":          []any{amqp.Table{"count": int64(2), "queue": "q", "time": time.Unix(9, 0), "routing-keys": []any{"a"}}},
			"x-delivery-count": int64(50), "omnibus.key": "k",
		},
	})
	if m.ID != "id" || m.Type != "t" || m.ContentType != "c" || m.Key != "k" || m.Time.Unix() != 7 || string(m.Payload) != "b" {
		t.Errorf("got %+v", m)
	}
	want := pubsub.Headers{
		{Name: "B", Value: "1", Kind: pubsub.HeaderInt}, {Name: "D", Value: `{"D":"2 314"}`, Kind: pubsub.HeaderNative}, {Name: "I", Value: "-3", Kind: pubsub.HeaderInt},
		{Name: "T", Value: "1970-01-01T00:00:09Z", Kind: pubsub.HeaderTime}, {Name: "amqp-correlation-id", Value: "7"}, {Name: "amqp-reply-to", Value: "answers"},
		{Name: "b", Value: "-1", Kind: pubsub.HeaderInt}, {Name: "d", Value: "2.5", Kind: pubsub.HeaderFloat}, {Name: "f", Value: "1.1", Kind: pubsub.HeaderFloat},
		{Name: "h", Value: "-2", Kind: pubsub.HeaderInt}, {Name: "i", Value: "3", Kind: pubsub.HeaderInt}, {Name: "l", Value: "-4", Kind: pubsub.HeaderInt}, {Name: "s", Value: "v"},
		{Name: "t", Value: "true", Kind: pubsub.HeaderBool}, {Name: "u", Value: "2", Kind: pubsub.HeaderInt}, {Name: "v", Kind: pubsub.HeaderNull},
		{Name: "x", Value: `{"x":"AP8="}`, Kind: pubsub.HeaderNative},
		{Name: "x-death", Value: `{"A":[{"F":{"count":{"l":"2"},"queue":{"S":"q"},"routing-keys":{"A":[{"S":"a"}]},"time":{"T":"1970-01-01T00:00:09Z"}}}]}`, Kind: pubsub.HeaderNative},
	}
	if !reflect.DeepEqual(m.Headers, want) {
		t.Errorf("headers\n%+v, want\n%+v", m.Headers, want)
	}
	roundTrip(t, m) // as its copies and its dead letter go
	if m := rabbitmq.Decode(&amqp.Delivery{}); m.Payload == nil || len(m.Headers) != 0 {
		t.Errorf("an empty message is %+v", m)
	}
}

func TestNative(t *testing.T) {
	t.Parallel()
	for _, v := range []any{
		amqp.Table{}, []any{}, []byte{}, amqp.Decimal{Scale: 255, Value: -7}, "text", "\xff", int8(-8), uint8(8), int16(-16), uint16(16), int32(-32), uint32(32), int64(-64),
		float32(1.5), 2.5, true, false, nil, amqp.Table{"a": amqp.Table{"b": []any{"c", nil, []byte{1}}}},
	} {
		text := rabbitmq.Native(v)
		got, ok := rabbitmq.ParseNative(text)
		if !ok || !reflect.DeepEqual(got, v) {
			t.Errorf("%#v is written as %s and read as %#v", v, text, got)
		}
	}
	for _, s := range []string{
		"", "{}", "null", `{"l":1}`, `{"l":"x"}`, `{"b":"300"}`, `{"F":null}`, `{"F":{"a":1}}`, `{"A":["a"]}`, `{"a":"1"}`, `{"l":"1","I":"2"}`, `{"D":"1"}`, `{"x":"%"}`,
		`{"F":{"` + strings.Repeat("n", 256) + `":{"V":""}}}`,
	} {
		if v, ok := rabbitmq.ParseNative(s); ok {
			t.Errorf("%s is read as %#v", s, v)
		}
	}
}

func FuzzRoundTrip(f *testing.F) {
	f.Add("id", "type", "key", []byte("payload"), "a", "1", "b", "2", uint8(2))
	f.Add("", "\xff", "k,;%", []byte(nil), "x-death", "", "omnibus.h1", `{"F":{}}`, uint8(6))
	f.Fuzz(func(t *testing.T, id, kind, key string, payload []byte, n1, v1, n2, v2 string, k uint8) {
		roundTrip(t, &pubsub.Message{
			ID: id, Type: kind, Key: key, ContentType: kind, Payload: payload,
			Headers: pubsub.Headers{{Name: n1, Value: v1, Kind: pubsub.HeaderKind(k % (uint8(pubsub.HeaderNative) + 1))}, {Name: n2, Value: v2}, {Name: n1, Value: v2}},
		})
	})
}

// Whatever stands in the headers of a message that somebody else has made up.
func FuzzDecode(f *testing.F) {
	f.Add("a,b;int,c;%", "%zz;native", []byte("x"), int64(-1))
	f.Fuzz(func(t *testing.T, list, value string, body []byte, n int64) {
		m := rabbitmq.Decode(&amqp.Delivery{Body: body, Headers: amqp.Table{
			"omnibus.ns": n, "omnibus.headers": list, "omnibus.h0": value, "omnibus.h1": n, "a": []byte(value), "omnibus.nil": value, "omnibus.id": n,
		}})
		if !bytes.Equal(m.Payload, body) {
			t.Errorf("payload %q", m.Payload)
		}
		legal(t, rabbitmq.Encode(m, false))
	})
}
