package pubsub_test

import (
	"errors"
	"testing"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Any URL opens a broker or is refused with a code.
func FuzzURL(f *testing.F) {
	for _, s := range []string{"mem://", "mem://x?max_bytes=1", "mem://a:b@c", "://", "mem://%zz", "nats://x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, url string) {
		b, err := pubsub.Mux{memory.Opener()}.Open(t.Context(), url, nil)
		if err != nil {
			if !errors.Is(err, pubsub.ErrInvalid) {
				t.Fatalf("%q: %v", url, err)
			}
			return
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// Whatever is published arrives byte for byte, or is refused with a code.
func FuzzHeaders(f *testing.F) {
	f.Add("n", "v", []byte("p"), "k")
	f.Add("", "", []byte(nil), "")
	f.Add("omnibus-expires", "1 1s", []byte{0xff}, "\x00")
	f.Fuzz(func(t *testing.T, name, value string, payload []byte, key string) {
		b := memory.New(nil)
		defer b.Close()
		if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "t"}}}); err != nil {
			t.Fatal(err)
		}
		m := pubsub.Message{Key: key, Payload: payload, Headers: pubsub.Headers{{Name: name, Value: value}, {Name: name, Value: value, Kind: pubsub.HeaderNative}}}
		if err := b.Publish(t.Context(), "t", m); err != nil {
			if !errors.Is(err, pubsub.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		for r, err := range b.Browse(t.Context(), pubsub.Place{Topic: "t"}, pubsub.Position{}) {
			if err != nil {
				t.Fatal(err)
			}
			if r.Msg.Key != key || string(r.Msg.Payload) != string(payload) || (r.Msg.Payload == nil) != (payload == nil) || len(r.Msg.Headers) != 2 || r.Msg.Headers[0] != m.Headers[0] || r.Msg.Headers[1] != m.Headers[1] {
				t.Fatalf("%+v arrived as %+v", m, r.Msg)
			}
		}
	})
}

// What a codec cannot read is permanent, and nothing panics.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"A":1}`), "t")
	f.Add([]byte(`{`), "")
	f.Fuzz(func(t *testing.T, payload []byte, typ string) {
		type v struct{ A int }
		_, err := pubsub.Typed[v]{Type: "t"}.Decode(&pubsub.Delivery{Message: pubsub.Message{Type: typ, Payload: payload}})
		if o, _ := pubsub.OutcomeOf(err); err != nil && o != pubsub.OutcomePermanent {
			t.Fatalf("%v is %v", err, o)
		}
	})
}

// A position's text is read back, and nothing else is accepted.
func FuzzPosition(f *testing.F) {
	f.Add("1.2.3.4")
	f.Add("255.-1.9223372036854775807.0")
	f.Fuzz(func(t *testing.T, s string) {
		var p pubsub.Position
		if p.UnmarshalText([]byte(s)) == nil && p.String() != s && p != (pubsub.Position{}) {
			t.Fatalf("%q was read as %q", s, p)
		}
	})
}
