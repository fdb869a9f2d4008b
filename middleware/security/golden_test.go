package security_test

import (
	"bytes"
	"crypto/fips140"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A wireMessage is a message as testdata/golden.json has it. Its texts are ASCII; payloads are base64, null where there is none.
type wireMessage struct {
	ID          string          `json:"id"`
	Type        string          `json:"type"`
	Key         string          `json:"key"`
	ContentType string          `json:"content_type"`
	Time        string          `json:"time"` // as it is signed; "" = none
	Headers     []pubsub.Header `json:"headers"`
	Payload     []byte          `json:"payload"`
}

func onWire(m pubsub.Message) wireMessage {
	w := wireMessage{ID: m.ID, Type: m.Type, Key: m.Key, ContentType: m.ContentType, Headers: m.Headers, Payload: m.Payload}
	if !m.Time.IsZero() {
		w.Time = m.Time.UTC().Format(time.RFC3339Nano)
	}
	return w
}

func (w wireMessage) message(t *testing.T) pubsub.Message {
	t.Helper()
	m := pubsub.Message{ID: w.ID, Type: w.Type, Key: w.Key, ContentType: w.ContentType, Headers: w.Headers, Payload: w.Payload}
	if w.Time != "" {
		var err error
		if m.Time, err = time.Parse(time.RFC3339Nano, w.Time); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// A vector is a message that somebody consumes from a topic, with what is to become of it.
type vector struct {
	Name      string       `json:"name"`
	Topic     string       `json:"topic"`
	Encrypted bool         `json:"encrypted"`         // it must be
	Refused   string       `json:"refused,omitempty"` // why
	Wire      wireMessage  `json:"wire"`
	Want      *wireMessage `json:"want,omitempty"` // what a handler gets, where it is not refused
	Producer  string       `json:"producer,omitempty"`
}

type goldenFile struct {
	About   string          `json:"about"`
	Keys    json.RawMessage `json:"keys"`
	Vectors []vector        `json:"vectors"`
}

const goldenPath = "testdata/golden.json"

var update = flag.Bool("update", false, "write testdata/golden.json anew")

// The file is for other implementations, in whatever language: what it accepts and refuses, they do. It is made once for a version of the wire format.
func TestGolden(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	b, err := os.ReadFile(goldenPath)
	if err != nil {
		t.Fatal(err)
	}
	var file goldenFile
	decodeJSON(t, b, &file)
	keys := goldenKeys(t, &file)
	r := ring(t, keys...)
	sign := security.Sign(security.SignOptions{Keys: r})
	accepted := map[security.Suite]int{}
	for _, v := range file.Vectors {
		layers := []pubsub.Middleware{sign, security.Encrypt(security.EncryptOptions{Unwrap: []security.KMS{r.KMS("")}, Plain: !v.Encrypted})}
		got, err := receive(t.Context(), v.Topic, v.Wire.message(t), layers...)
		if v.Refused != "" {
			if why, ok := errors.AsType[security.Refusal](err); !ok || why.Error() != v.Refused || got != nil {
				t.Errorf("%s: %v, want %q", v.Name, err, v.Refused)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		accepted[got.verified.Suite]++
		if want := v.Want.message(t); !reflect.DeepEqual(got.msg, want) || got.verified.Producer != v.Producer {
			t.Errorf("%s: a handler gets %+v of %s, want %+v", v.Name, got.msg, got.verified.Producer, want)
		}
	}
	for _, s := range suites() {
		if accepted[s] == 0 {
			t.Errorf("no message of %s is accepted", s)
		}
	}
	if fips140.Enforced() {
		return // what follows has a virtual clock, see virtualClock
	}
	// Signatures are deterministic: what is signed today is what was signed then.
	synctest.Test(t, func(t *testing.T) {
		for _, v := range file.Vectors {
			if v.Refused != "" || v.Encrypted {
				continue
			}
			again := mustSend(t, v.Topic, v.Want.message(t), security.Sign(security.SignOptions{Keys: r, Producer: v.Producer, Cover: []string{"role"}}))
			if !reflect.DeepEqual(again, v.Wire.message(t)) {
				t.Errorf("%s: it is signed as %v, and was as %v", v.Name, again.Headers, v.Wire.Headers)
			}
		}
	})
}

// goldenKeys are the keys of the file. Where X25519 is forbidden they lack those, and the file the messages for them.
func goldenKeys(t *testing.T, file *goldenFile) []security.Key {
	t.Helper()
	var ring struct {
		Keys []map[string]string `json:"keys"`
	}
	decodeJSON(t, file.Keys, &ring)
	if fips140.Enforced() {
		ring.Keys = slices.DeleteFunc(ring.Keys, func(k map[string]string) bool { return k["suite"] == string(security.HPKEX25519) })
		file.Vectors = slices.DeleteFunc(file.Vectors, func(v vector) bool { return strings.Contains(v.Name, string(security.HPKEX25519)) })
	}
	keys, err := security.DecodeKeys(encodeJSON(t, ring))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// writeGolden makes new keys and messages. The clock is that of synctest, which begins in 2000.
func writeGolden(t *testing.T) {
	t.Helper()
	var keys []security.Key
	for _, s := range suites() {
		keys = append(keys, key(t, s, string(s)+"-1", string(s)))
	}
	keys = append(keys, key(t, security.Ed25519, "both-1", "both"), key(t, security.P256, "both-2", "both"))
	for _, s := range wrapSuites() {
		keys = append(keys, key(t, s, string(s)+"-1", string(s)))
	}
	revoked := key(t, security.Ed25519, "revoked-1", "revoked")
	file := goldenFile{
		About: "Messages of version 1 of the wire format that package security accepts and refuses. The clock does not matter.",
		Keys:  encodeKeys(t, append(keys, revoked.With(security.Revoked))...),
	}
	all := ring(t, append(keys, revoked)...)
	synctest.Test(t, func(t *testing.T) {
		add := func(v vector, m, wire pubsub.Message) {
			v.Wire = onWire(wire)
			if v.Refused == "" {
				w := onWire(m)
				v.Want = &w
			}
			file.Vectors = append(file.Vectors, v)
		}
		sign := func(who string) pubsub.Middleware {
			return security.Sign(security.SignOptions{Keys: all, Producer: who, Cover: []string{"role"}})
		}
		nothing, empty := pubsub.Message{ID: "1", Type: "t"}, pubsub.Message{ID: "1", Type: "t", Payload: []byte{}}
		for _, who := range []string{"ed25519", "p256", "hmac-sha256", "both"} {
			for name, m := range map[string]pubsub.Message{"full": order(), "no payload": nothing, "empty payload": empty} {
				add(vector{Name: who + ", " + name, Topic: alteredTopic, Producer: who}, m, mustSend(t, alteredTopic, m, sign(who)))
			}
			for _, wrap := range wrapSuites() {
				enc := security.Encrypt(security.EncryptOptions{Producer: who, Recipients: []security.KMS{all.KMS(string(wrap))}})
				wire := mustSend(t, alteredTopic, order(), sign(who), enc)
				add(vector{Name: who + ", encrypted for " + string(wrap), Topic: alteredTopic, Producer: who, Encrypted: true}, order(), wire)
				wire = mustSend(t, alteredTopic, mustSend(t, alteredTopic, order(), enc), sign("revoked"))
				add(vector{Name: "revoked, encrypted for " + string(wrap), Topic: alteredTopic, Refused: security.ErrUnknownKey.Error(), Encrypted: true}, order(), wire)
				wire = mustSend(t, alteredTopic, mustSend(t, "another", order(), enc), sign(who))
				add(vector{Name: who + ", ciphertext for another topic and " + string(wrap), Topic: alteredTopic, Refused: security.ErrUndecryptable.Error(), Encrypted: true}, order(), wire)
			}
		}
		add(vector{Name: "not encrypted", Topic: alteredTopic, Refused: security.ErrUnencrypted.Error(), Encrypted: true}, order(), mustSend(t, alteredTopic, order(), sign("p256")))
		add(vector{Name: "another topic", Topic: "another", Refused: security.ErrWrongDestination.Error()}, order(), mustSend(t, alteredTopic, order(), sign("p256")))
		k := key(t, security.Ed25519, "orders-1", "orders")
		altering := security.Sign(security.SignOptions{Keys: ring(t, k), Producer: "orders", Cover: []string{"role"}})
		file.Keys = encodeKeys(t, append(keys, revoked.With(security.Revoked), public(t, k))...)
		for _, name := range slices.Sorted(maps.Keys(alterations())) {
			wire, a := mustSend(t, alteredTopic, order(), altering), alterations()[name]
			a.edit(&wire)
			if len(wire.Headers) < maxGoldenHeaders { // a long list teaches nobody
				add(vector{Name: "altered: " + name, Topic: alteredTopic, Refused: a.why.Error()}, order(), wire)
			}
		}
	})
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(file); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenPath, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

const maxGoldenHeaders = 100

// The example of DSSE's own protocol.md.
func TestEnvelopeIsThatOfDSSE(t *testing.T) {
	if got := string(security.Envelope("http://example.com/HelloWorld", "hello world")); got != "DSSEv1 29 http://example.com/HelloWorld 11 hello world" {
		t.Errorf("%q", got)
	}
}
