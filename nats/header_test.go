package nats_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	client "github.com/nats-io/nats.go"

	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
)

// overTheWire encodes a message, writes its headers as the client does, reads them as it does, and decodes.
func overTheWire(t *testing.T, msg *pubsub.Message) *pubsub.Message {
	t.Helper()
	m := &client.Msg{Subject: "orders"}
	nats.Encode(m, msg, pubsub.Dedup{})
	var text bytes.Buffer
	text.WriteString("NATS/1.0\r\n")
	for name, values := range m.Header {
		for _, v := range values {
			if strings.ContainsAny(name+v, "\r\n\x00") || strings.ContainsAny(name, ": ") || name == "" && v != "" {
				t.Fatalf("header %q: %q cannot be written", name, v)
			}
			text.WriteString(name + ": " + v + "\r\n")
		}
	}
	text.WriteString("\r\n")
	h, err := client.DecodeHeadersMsg(text.Bytes())
	if err != nil {
		t.Fatalf("%v in %q", err, text.Bytes())
	}
	return nats.Decode(&client.Msg{Header: h, Data: m.Data})
}

func TestHeadersRoundTrip(t *testing.T) {
	headers := func(list ...string) (all []pubsub.Header) {
		for i := 0; i < len(list); i += 2 {
			all = append(all, pubsub.Header{Name: list[i], Value: list[i+1]})
		}
		return all
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for name, msg := range map[string]pubsub.Message{
		"nothing":            {},
		"empty payload":      {Payload: []byte{}},
		"all fields":         {ID: " 1% ", Key: "\x00\xff", Type: "\r\n", ContentType: "text/plain; a=\"b\"", Time: at, Payload: []byte("x")},
		"one":                {Headers: headers("a", "b")},
		"order and repeats":  {Headers: headers("b", "1", "a", "2", "b", "3", "B", "4")},
		"values":             {Headers: headers("a", "", "b", " ", "c", "%", "d", "%41", "e", "\t", "f", "\n a", "g", "ü☃", "h", "\xff\xfe", "i", "\u00a0x\u00a0")},
		"names":              {Headers: headers("", "v", " ", "v", "a b", "v", "a:b", "v", "a,b", "v", "a;b", "v", "ü", "v", "%", "v", "\r\n", "v")},
		"names of this form": {Headers: headers("Omnibus-Id", "1", "Omnibus-Headers", "2", "Nats-Msg-Id", "3", "nats-expected-stream", "4", "Content-Type", "5", "content-type", "6")},
		"kinds": {Headers: []pubsub.Header{
			{Name: "n", Kind: pubsub.HeaderNull}, {Name: "n", Value: "1", Kind: pubsub.HeaderInt}, {Name: "n", Value: "1.5", Kind: pubsub.HeaderFloat}, {Name: "n", Value: "true", Kind: pubsub.HeaderBool},
		}},
		"one kind": {Headers: []pubsub.Header{{Name: "n", Value: "1", Kind: pubsub.HeaderInt}}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := overTheWire(t, &msg); !reflect.DeepEqual(*got, msg) {
				t.Errorf("got  %+v\nwant %+v", *got, msg)
			}
		})
	}
}

// Any message comes back as it was, and anything that another client has written can be read.
func FuzzHeaders(f *testing.F) {
	f.Add("id", "key", "type", "text/plain", []byte("p"), "name", "value", "other", "value", uint8(0))
	f.Add("", "", "", "", []byte(nil), "Omnibus-Id", " %20", "Nats-X", "\r\n", uint8(3))
	f.Add("%", "\x00", " ", "\x7f", []byte{}, "", "", "", "", uint8(255))
	f.Fuzz(func(t *testing.T, id, key, typ, content string, payload []byte, n1, v1, n2, v2 string, kind uint8) {
		msg := pubsub.Message{ID: id, Key: key, Type: typ, ContentType: content, Payload: payload, Time: time.Unix(int64(kind), int64(len(id))).UTC()}
		msg.Headers = []pubsub.Header{
			{Name: n1, Value: v1, Kind: pubsub.HeaderKind(kind % (uint8(pubsub.HeaderNative) + 1))}, {Name: n2, Value: v2}, {Name: n1, Value: v2},
		}
		msg.Headers = msg.Headers[:kind%4]
		if len(msg.Headers) == 0 {
			msg.Headers = nil
		}
		if got := overTheWire(t, &msg); !reflect.DeepEqual(*got, msg) {
			text, err := json.Marshal(msg)
			t.Errorf("got  %+v\nwant %+v (%s, %v, valid: %v)", *got, msg, text, err, utf8.ValidString(v1))
		}
		foreign := client.Header{n1: {v1, v2}, n2: {v2}, "Omnibus-Headers": {v1}, "Omnibus-Time": {v2}, "Omnibus-Nil": nil}
		if kind%2 == 0 {
			foreign["Omnibus-Id"] = []string{id}
		}
		nats.Decode(&client.Msg{Header: foreign, Data: payload})
	})
}
