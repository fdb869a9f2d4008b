package redisstreams_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/redisstreams"
)

func TestRecordsRoundTrip(t *testing.T) {
	headers := func(list ...string) (all []pubsub.Header) {
		for i := 0; i < len(list); i += 2 {
			all = append(all, pubsub.Header{Name: list[i], Value: list[i+1]})
		}
		return all
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for name, msg := range map[string]pubsub.Message{
		"nothing":           {Time: at},
		"empty payload":     {Time: at, Payload: []byte{}},
		"all fields":        {ID: " 1% ", Key: "\x00\xff", Type: "\r\n", ContentType: "text/plain; a=\"b\"", Time: at, Payload: []byte("x")},
		"the first time":    {},
		"the last time":     {Time: time.Date(9999, 12, 31, 23, 59, 59, 999, time.UTC)},
		"before 1970":       {Time: time.Unix(-1, 1).UTC()},
		"order and repeats": {Time: at, Headers: headers("b", "1", "a", "2", "b", "3", "B", "4")},
		"values":            {Time: at, Headers: headers("a", "", "b", " ", "c", "\r\n$5\r\n", "d", "\xff\xfe")},
		"names":             {Time: at, Headers: headers("", "v", ":", "v", ":id", "v", ":h0:x", "v", "payload", "v", "::", "v", "ü", "v", "\r\n", "v")},
		"kinds": {Time: at, Headers: []pubsub.Header{
			{Name: "n", Kind: pubsub.HeaderNull}, {Name: "n", Value: "1", Kind: pubsub.HeaderInt}, {Name: "n", Value: "1.5", Kind: pubsub.HeaderFloat},
			{Name: ":n", Value: "true", Kind: pubsub.HeaderBool}, {Name: "", Value: "x", Kind: pubsub.HeaderNative}, {Name: "payload", Value: "x", Kind: pubsub.HeaderTime},
		}},
	} {
		got, err := redisstreams.Decode(redisstreams.Fields(&msg))
		if err != nil || !reflect.DeepEqual(*got, msg) {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v", name, err, *got, msg)
		}
	}
}

func entry(fields ...string) (all [][]byte) {
	for _, f := range fields {
		all = append(all, []byte(f))
	}
	return all
}

// What another client writes is read as it is, and what it writes in our own form and wrong is there raw.
func TestForeignFields(t *testing.T) {
	m, err := redisstreams.Decode(entry("user", "7", "payload", "p", "user", "8", ":key", "k", "", "x", ":at", "2026-01-02T03:04:05Z"))
	want := pubsub.Message{
		Key: "k", Payload: []byte("p"), Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Headers: pubsub.Headers{{Name: "user", Value: "7"}, {Name: "user", Value: "8"}, {Name: "", Value: "x"}},
	}
	if err != nil || !reflect.DeepEqual(*m, want) {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, *m, want)
	}
	for says, fields := range map[string][][]byte{
		"no time":     entry("a", "b", ":at", "no time", "payload", "p"),
		"two fields":  entry("a", "b", "payload", "p", ":id", "1", ":id", "2"),
		"none of our": entry("a", "b", ":h9:x", "1", "payload", "p"),
		`"payload"`:   entry("payload", "p", "a", "b", "payload", "q"),
		`":"`:         entry("a", "b", ":", "1", "payload", "p"),
	} {
		m, err := redisstreams.Decode(fields)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", fields, err, says)
		}
		if string(m.Payload) != "p" || m.Headers.Get("a") != "b" || m.ID != "" || len(m.Headers) != len(fields)/2-1 {
			t.Errorf("%q came as %+v", fields, *m)
		}
	}
}

func FuzzRecords(f *testing.F) {
	f.Add("id", "key", "type", "text/plain", []byte("p"), "name", "value", "other", "value", uint8(0))
	f.Add("", "", "", "", []byte(nil), ":id", "", ":h1:x", "\r\n", uint8(3))
	f.Add("%", "\x00", " ", "\x7f", []byte{}, "", "", "payload", "", uint8(255))
	f.Fuzz(func(t *testing.T, id, key, typ, content string, payload []byte, n1, v1, n2, v2 string, kind uint8) {
		msg := pubsub.Message{ID: id, Key: key, Type: typ, ContentType: content, Payload: payload, Time: time.Unix(int64(kind), int64(len(id))).UTC()}
		msg.Headers = []pubsub.Header{
			{Name: n1, Value: v1, Kind: pubsub.HeaderKind(kind % (uint8(pubsub.HeaderNative) + 1))}, {Name: n2, Value: v2}, {Name: n1, Value: v2},
		}
		msg.Headers = msg.Headers[:kind%4]
		if len(msg.Headers) == 0 {
			msg.Headers = nil
		}
		if got, err := redisstreams.Decode(redisstreams.Fields(&msg)); err != nil || !reflect.DeepEqual(*got, msg) {
			t.Errorf("%v\ngot  %+v\nwant %+v", err, *got, msg)
		}
		m, err := redisstreams.Decode(entry(n1, v1, n2, v2, n1, v2, "payload", string(payload)))
		if err != nil && len(m.Headers) < 3 {
			t.Errorf("%v leaves %+v", err, *m)
		}
	})
}

// Whatever comes as an answer, reading it ends.
func FuzzReplies(f *testing.F) {
	f.Add([]byte("*1\r\n*2\r\n$1\r\na\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n"))
	f.Add([]byte("*-1\r\n"))
	f.Add([]byte("-ERR no\r\n"))
	f.Add([]byte("*1\r\n*2\r\n$1\r\na\r\n*99\r\n$-1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := redisstreams.ReadReply(b); err == nil && n > len(b) {
			t.Errorf("%d entries in %d bytes", n, len(b))
		}
	})
}
