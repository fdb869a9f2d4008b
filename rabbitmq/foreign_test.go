package rabbitmq_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A foreign message is one as testdata/client.py writes it down.
type foreign struct {
	Key        string                    `json:"key"`
	Body       []byte                    `json:"body"`
	Timestamp  int64                     `json:"timestamp"`
	Properties map[string]string         `json:"properties"`
	Headers    map[string]map[string]any `json:"headers"`
}

// python runs the client that `make setup` has put into build/clients.
func python(t *testing.T, s *server, in any, args ...string) []byte {
	t.Helper()
	modules, err := filepath.Abs("../build/clients/rabbitmq")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "pika")); err != nil {
		t.Fatalf("there is no AMQP client in another language: `make setup` gets it (%v)", err)
	}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "python3", append([]string{"testdata/client.py", s.URL() + "/%2F"}, args...)...)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+modules)
	cmd.Stdin = bytes.NewReader(text)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("python %q: %v\n%s", args, err, &stderr)
	}
	return out
}

func read(t *testing.T, s *server, queue string, count int) (list []foreign) {
	t.Helper()
	if err := json.Unmarshal(python(t, s, nil, "read", queue, strconv.Itoa(count)), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != count {
		t.Fatalf("the other client read %d messages, want %d", len(list), count)
	}
	return list
}

func ensure(t *testing.T, b *pubsub.Broker, topics ...string) {
	t.Helper()
	var all pubsub.Topology
	for _, topic := range topics {
		all.Groups = append(all.Groups, pubsub.Subscription{Topic: topic, Group: "g"})
	}
	if err := b.Ensure(t.Context(), all); err != nil {
		t.Fatal(err)
	}
}

// What we publish another client reads as header.go says, and what it copies is for us the same message. This client reads doubles as whole numbers, and
// negative integers of 64 bits as positive ones: those go one way only.
func TestForeignClientReads(t *testing.T) {
	s := startServer(t, "default")
	b := s.open(t, nil, nil)
	ensure(t, b, "ours", "copied")
	long := strings.Repeat("long % ", 500)
	sent := pubsub.Message{
		ID: "id 1%", Key: "Schlüssel", Type: "made", ContentType: "text/plain", Payload: []byte("\x00payload\xff\r\n"), Time: time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC),
		Headers: pubsub.Headers{
			{Name: "x-twice", Value: "a"}, {Name: "X-Between", Value: "b"}, {Name: "x-twice", Value: "c"}, {Name: "x-empty"}, {Name: "x-unicode", Value: "Grüße ☃"}, {Name: "ключ", Value: "v"},
			{Name: "CC", Value: "mine"}, {Name: "x-death", Value: "mine"}, {Name: "x-long", Value: long}, {Name: "int", Value: "-7", Kind: pubsub.HeaderInt},
			{Name: "large", Value: "9000000000", Kind: pubsub.HeaderInt}, {Name: "bool", Value: "true", Kind: pubsub.HeaderBool},
			{Name: "null", Kind: pubsub.HeaderNull}, {Name: "time", Value: "2001-02-03T04:05:06Z", Kind: pubsub.HeaderTime},
			{Name: "table", Value: `{"F":{"list":{"A":[{"S":"a"},{"l":"5000000000"}]}}}`, Kind: pubsub.HeaderNative}, {Name: "bytes", Value: `{"x":"AP8="}`, Kind: pubsub.HeaderNative},
		},
	}
	for _, m := range []pubsub.Message{sent, {ID: "nothing"}, {ID: "empty", Payload: []byte{}}} {
		if err := b.Publish(t.Context(), "ours", m); err != nil {
			t.Fatal(err)
		}
	}
	there := read(t, s, "ours__g", 3)
	m := there[0]
	want := map[string]string{"message_id": "id 1%", "type": "made", "content_type": "text/plain"}
	if !bytes.Equal(m.Body, sent.Payload) || m.Timestamp != sent.Time.Unix() || m.Key != "ours" || !reflect.DeepEqual(m.Properties, want) {
		t.Errorf("the other client reads %+v", m)
	}
	for name, want := range map[string]map[string]any{
		"omnibus.key": {"S": "Schlüssel"}, "x-twice": {"S": "a"}, "X-Between": {"S": "b"}, "omnibus.h2": {"S": "c"}, "x-empty": {"S": ""}, "x-unicode": {"S": "Grüße ☃"}, "omnibus.h5": {"S": "v"},
		"omnibus.h6": {"S": "mine"}, "omnibus.h7": {"S": "mine"}, "x-long": {"S": long}, "int": {"l": -7.0}, "large": {"l": 9e9}, "bool": {"t": true}, "null": {"V": nil},
		"time": {"T": float64(981173106)}, "bytes": {"x": "AP8="}, "CC": nil, "x-death": nil, "omnibus.nil": nil,
		"table": {"F": map[string]any{"list": map[string]any{"A": []any{map[string]any{"S": "a"}, map[string]any{"l": 5e9}}}}},
	} {
		if got := m.Headers[name]; !reflect.DeepEqual(got, want) {
			t.Errorf("header %s is %v for the other client, want %v", name, got, want)
		}
	}
	for i := range there {
		there[i].Key = "copied"
	}
	python(t, s, there, "publish", "omnibus")
	back := adaptertest.Receive(t, b, pubsub.Subscription{Topic: "copied", Group: "g"}, 3)
	if !reflect.DeepEqual(back[0], sent) {
		t.Errorf("after its way through the other client:\n%.3000v, want\n%.3000v", back[0], sent)
	}
	if back[1].Payload != nil || back[2].Payload == nil {
		t.Errorf("payloads %v and %v, want nil and an empty one", back[1].Payload, back[2].Payload)
	}
}

// What another client publishes is read as it is (this one knows no doubles), and so are its retry, its dead letter and what the broker has added to it.
func TestForeignClientPublishes(t *testing.T) {
	s := startServer(t, "default")
	b := s.open(t, nil, nil)
	ensure(t, b, "theirs")
	long := strings.Repeat("ü", 4000)
	death := map[string]any{"A": []any{map[string]any{"F": map[string]any{"count": map[string]any{"l": 5e9}, "queue": map[string]any{"S": "elsewhere"}}}}}
	python(t, s, []foreign{
		{"theirs", []byte("\x00\xff"), 981173106, map[string]string{"message_id": "m1", "content_type": "text/plain", "type": "made", "reply_to": "answers", "correlation_id": "7"}, map[string]map[string]any{
			"omnibus.key": {"S": "k"}, "x-case": {"S": "b"}, "x-Case": {"S": "B"}, "x-empty": {"S": ""}, "x-unicode": {"S": "Grüße ☃"}, "x-long": {"S": long}, "int": {"l": -7},
			"bool": {"t": true}, "null": {"V": nil}, "time": {"T": 981173106}, "bytes": {"x": "AP8="}, "decimal": {"D": "3.14"}, "x-death": death,
		}},
		{"theirs", []byte{}, 0, nil, nil},
	}, "publish", "omnibus")
	want := pubsub.Headers{
		{Name: "amqp-correlation-id", Value: "7"}, {Name: "amqp-reply-to", Value: "answers"}, {Name: "bool", Value: "true", Kind: pubsub.HeaderBool},
		{Name: "bytes", Value: `{"x":"AP8="}`, Kind: pubsub.HeaderNative}, {Name: "decimal", Value: `{"D":"2 314"}`, Kind: pubsub.HeaderNative},
		{Name: "int", Value: "-7", Kind: pubsub.HeaderInt}, {Name: "null", Kind: pubsub.HeaderNull},
		{Name: "time", Value: "2001-02-03T04:05:06Z", Kind: pubsub.HeaderTime}, {Name: "x-Case", Value: "B"}, {Name: "x-case", Value: "b"},
		{Name: "x-death", Value: `{"A":[{"F":{"count":{"l":"5000000000"},"queue":{"S":"elsewhere"}}}]}`, Kind: pubsub.HeaderNative},
		{Name: "x-empty"}, {Name: "x-long", Value: long}, {Name: "x-unicode", Value: "Grüße ☃"},
	}
	same := func(what string, m *pubsub.Message) {
		t.Helper()
		h := m.Headers
		for len(h) > 0 && strings.HasPrefix(h[len(h)-1].Name, "omnibus-dlq-") {
			h = h[:len(h)-1]
		}
		if string(m.Payload) != "\x00\xff" || m.ID != "m1" || m.Key != "k" || m.Type != "made" || m.ContentType != "text/plain" || m.Time.Unix() != 981173106 {
			t.Errorf("%s: %+v", what, m)
		}
		if !reflect.DeepEqual(h, want) {
			t.Errorf("%s: headers\n%.4000v, want\n%.4000v", what, h, want)
		}
	}
	attempts, empty := make(chan pubsub.Message, 10), make(chan pubsub.Message, 1)
	sub := pubsub.Subscription{Topic: "theirs", Group: "g", Order: pubsub.OrderByKeyLoose, Retry: pubsub.Policy{MaxAttempts: 2, Delays: []time.Duration{300 * time.Millisecond}}}
	_, err := b.Subscribe(t.Context(), sub, func(_ context.Context, d *pubsub.Delivery) error {
		if d.ID == "" {
			empty <- d.Message
			return nil
		}
		var native *amqp.Delivery
		if !d.As(&native) || native.RoutingKey == "" {
			t.Errorf("the client's own delivery is %+v", native)
		}
		attempts <- d.Message.Clone()
		return pubsub.RetryAfter(300*time.Millisecond, amqp.ErrClosed)
	})
	if err != nil {
		t.Fatal(err)
	}
	if m := <-empty; m.Payload == nil || len(m.Payload) != 0 || len(m.Headers) != 0 {
		t.Errorf("got %+v, want an empty message", m)
	}
	for _, what := range []string{"as it came", "its retry"} {
		m := <-attempts
		same(what, &m)
	}
	poll.Until(t, "the dead letter", func() bool {
		for r, err := range b.Browse(t.Context(), pubsub.Place{Topic: "theirs", Group: "g", Kind: pubsub.PlaceDead}, pubsub.Position{}) {
			if err != nil {
				t.Fatal(err)
			}
			same("its dead letter", r.Msg)
			return true
		}
		return false
	})
}
