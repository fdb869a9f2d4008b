package interop_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A wire is a message as ../testdata/golden.json has it.
type wire struct {
	ID          string          `json:"id"`
	Type        string          `json:"type"`
	Key         string          `json:"key"`
	ContentType string          `json:"content_type"`
	Time        string          `json:"time"`
	Headers     []pubsub.Header `json:"headers"`
	Payload     []byte          `json:"payload"`
}

type vector struct {
	Name      string `json:"name"`
	Topic     string `json:"topic"`
	Encrypted bool   `json:"encrypted"`
	Refused   string `json:"refused,omitempty"`
	Wire      wire   `json:"wire"`
	Want      *wire  `json:"want,omitempty"`
	Producer  string `json:"producer,omitempty"`
}

type file struct {
	Keys    json.RawMessage `json:"keys"`
	Vectors []vector        `json:"vectors"`
}

// A judgement is what a verifier makes of a message.
type judgement struct {
	Refused  string          `json:"refused"`
	Headers  []pubsub.Header `json:"headers"`
	Payload  []byte          `json:"payload"`
	Producer string          `json:"producer"`
}

// inPython has messages judged by the program that `make setup` has got what it needs for.
func inPython(t *testing.T, f file) []judgement {
	t.Helper()
	modules, err := filepath.Abs("../../../build/clients/python/modules")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "cryptography")); err != nil {
		t.Fatalf("the verifier in Python lacks a library: `make setup` gets it (%v)", err)
	}
	in, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "python3", "testdata/verify.py")
	cmd.Env = append(os.Environ(), "PYTHONPATH="+modules, "PYTHONDONTWRITEBYTECODE=1")
	cmd.Stdin = bytes.NewReader(in)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("python3: %v\n%s", err, &stderr)
	}
	var all []judgement
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) != len(f.Vectors) {
		t.Fatalf("%d of %d messages are judged", len(all), len(f.Vectors))
	}
	return all
}

func golden(t *testing.T) file {
	t.Helper()
	b, err := os.ReadFile("../testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestGoldenInPython(t *testing.T) {
	f := golden(t)
	accepted := 0
	for i, got := range inPython(t, f) {
		v := f.Vectors[i]
		want := judgement{Refused: v.Refused}
		if v.Want != nil {
			accepted++
			want = judgement{Headers: v.Want.Headers, Payload: v.Want.Payload, Producer: v.Producer}
		}
		if len(got.Headers) == 0 {
			got.Headers = nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", v.Name, got, want)
		}
	}
	if accepted < 20 || accepted > len(f.Vectors)-20 {
		t.Errorf("%d of %d messages are accepted: that says little", accepted, len(f.Vectors))
	}
}

// Both see the same in messages that were damaged at random.
func TestDamagedInPython(t *testing.T) {
	f := golden(t)
	var keyring bytes.Buffer
	if err := json.Compact(&keyring, f.Keys); err != nil {
		t.Fatal(err)
	}
	keys, err := security.DecodeKeys(keyring.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	ring, err := security.NewKeyring(keys...)
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	var damaged []vector
	for _, v := range f.Vectors {
		if v.Want == nil {
			continue
		}
		for range 40 {
			d := v
			d.Wire = damage(rng, v.Wire)
			damaged = append(damaged, d)
		}
	}
	refused := 0
	for i, got := range inPython(t, file{Keys: f.Keys, Vectors: damaged}) {
		want := inGo(t, ring, damaged[i])
		if want.Refused != "" {
			refused++
		}
		if len(got.Headers) == 0 {
			got.Headers = nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v in Python, %+v in Go: %+v", damaged[i].Name, got, want, damaged[i].Wire)
		}
	}
	if refused < len(damaged)/2 {
		t.Errorf("%d of %d damaged messages are refused", refused, len(damaged))
	}
}

// damage changes one thing, in ASCII: JSON would change others.
func damage(rng *rand.Rand, w wire) wire {
	w.Headers, w.Payload = slices.Clone(w.Headers), bytes.Clone(w.Payload)
	text := func(s *string) {
		b := []byte(*s)
		if len(b) > 0 {
			b[rng.IntN(len(b))] = "Aa-_.~=+/ 0z"[rng.IntN(12)]
		}
		*s = string(b)
	}
	switch at := rng.IntN(len(w.Headers)); rng.IntN(9) {
	case 0:
		text(&w.ID)
	case 1:
		text(&w.Type)
	case 2:
		text(&w.Key)
	case 3:
		w.ContentType += " "
	case 4:
		if len(w.Payload) > 0 {
			w.Payload[rng.IntN(len(w.Payload))]++
		}
	case 5:
		w.Headers = slices.Delete(w.Headers, at, at+1)
	case 6:
		w.Headers = append(w.Headers, w.Headers[at])
	default:
		text(&w.Headers[at].Value)
	}
	return w
}

func inGo(t *testing.T, ring *security.Keyring, v vector) judgement {
	t.Helper()
	m := pubsub.Message{ID: v.Wire.ID, Type: v.Wire.Type, Key: v.Wire.Key, ContentType: v.Wire.ContentType, Headers: v.Wire.Headers, Payload: v.Wire.Payload}
	if v.Wire.Time != "" {
		var err error
		if m.Time, err = time.Parse(time.RFC3339Nano, v.Wire.Time); err != nil {
			t.Fatal(err)
		}
	}
	var got judgement
	h := pubsub.Handler(func(ctx context.Context, d *pubsub.Delivery) error {
		verified, _ := security.From(ctx)
		got = judgement{Headers: d.Headers, Payload: d.Payload, Producer: verified.Producer}
		return nil
	})
	h = security.Encrypt(security.EncryptOptions{Unwrap: []security.KMS{ring.KMS("")}, Plain: !v.Encrypted}).Incoming(h)
	h = security.Sign(security.SignOptions{Keys: ring}).Incoming(h)
	if why, ok := errors.AsType[security.Refusal](h(t.Context(), &pubsub.Delivery{Message: m, Topic: v.Topic})); ok {
		return judgement{Refused: why.Error()}
	}
	return got
}
