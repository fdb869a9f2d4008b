package nats_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A foreign message is one as testdata/client.js writes it down.
type foreign struct {
	Subject string      `json:"subject"`
	Data    []byte      `json:"data"`
	Headers [][2]string `json:"headers"`
}

func (m foreign) values(name string) (all []string) {
	for _, h := range m.Headers {
		if h[0] == name {
			all = append(all, h[1])
		}
	}
	return all
}

// javaScript runs the client that `make setup` has put into build/clients.
func javaScript(t *testing.T, in any, args ...string) []byte {
	t.Helper()
	modules, err := filepath.Abs("../build/clients/nats/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(modules); err != nil {
		t.Fatalf("there is no NATS client in another language: `make setup` gets it (%v)", err)
	}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", append([]string{"testdata/client.js"}, args...)...)
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	cmd.Stdin = bytes.NewReader(text)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node %q: %v\n%s", args, err, &stderr)
	}
	return out
}

func read(t *testing.T, s *server, topic string, count int) (list []foreign) {
	t.Helper()
	out := javaScript(t, nil, s.URL(), "read", "omnibus", topic, strconv.Itoa(count))
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != count {
		t.Fatalf("the other client read %d messages, want %d", len(list), count)
	}
	return list
}

// What we publish another client reads as header.go says, and what it copies is for us the same message.
func TestForeignClientReads(t *testing.T) {
	s := startServer(t, "default")
	b := s.open(t)
	long := strings.Repeat("long % ", 500) + "."
	sent := pubsub.Message{
		ID: "id 1%", Key: "Schlüssel %41", Type: "made", ContentType: "text/plain", Payload: []byte("\x00payload\xff\r\n"),
		Time: time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC),
		Headers: []pubsub.Header{
			{Name: "x-twice", Value: "a"}, {Name: "X-Between", Value: "b"}, {Name: "x-twice", Value: "c"}, {Name: "x-case", Value: "lower"}, {Name: "X-CASE", Value: "upper"},
			{Name: "x-empty", Value: ""}, {Name: "x-percent", Value: "100% %41"}, {Name: "x-unicode", Value: "Grüße ☃"}, {Name: "ключ", Value: "v"}, {Name: "a b:c", Value: "v"},
			{Name: "x-lines", Value: "a\r\nb: c\t"}, {Name: "x-blanks", Value: "  x "}, {Name: "x-long", Value: long}, {Name: "Nats-Msg-Id", Value: "mine"}, {Name: "Omnibus-Key", Value: "mine"},
			{Name: "x-number", Value: "7", Kind: pubsub.HeaderInt},
		},
	}
	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "ours"}, {Name: "copied"}}}); err != nil {
		t.Fatal(err)
	}
	for _, m := range []pubsub.Message{sent, {ID: "nothing"}, {ID: "empty", Payload: []byte{}}} {
		if err := b.Publish(t.Context(), "ours", m); err != nil {
			t.Fatal(err)
		}
	}
	there := read(t, s, "ours", 3)
	if !bytes.Equal(there[0].Data, sent.Payload) {
		t.Errorf("payload %q", there[0].Data)
	}
	for name, want := range map[string][]string{
		"Omnibus-Id": {"id 1%25"}, "Omnibus-Key": {"Schlüssel %2541"}, "Omnibus-Type": {"made"}, "Content-Type": {"text/plain"}, "Omnibus-Time": {"2026-01-02T03:04:05.000000678Z"},
		"x-twice": {"a", "c"}, "X-Between": {"b"}, "x-case": {"lower"}, "X-CASE": {"upper"}, "x-empty": {""}, "x-percent": {"100%25 %2541"}, "x-unicode": {"Grüße ☃"},
		"%D0%BA%D0%BB%D1%8E%D1%87": {"v"}, "a%20b%3Ac": {"v"}, "x-lines": {"a%0D%0Ab: c%09"}, "x-blanks": {"%20 x%20"}, "x-long": {strings.ReplaceAll(long, "%", "%25")},
		"%4Eats-Msg-Id": {"mine"}, "%4Fmnibus-Key": {"mine"}, "x-number": {"7"}, "Omnibus-Nil": nil,
	} {
		if got := there[0].values(name); !slices.Equal(got, want) {
			t.Errorf("header %s is %q for the other client, want %q", name, got, want)
		}
	}
	for i := range there {
		there[i].Subject = "copied"
		there[i].Headers = slices.DeleteFunc(there[i].Headers, func(h [2]string) bool { return h[0] == "Nats-Msg-Id" }) // else the stream has it already
	}
	javaScript(t, there, s.URL(), "publish")
	back := adaptertest.Receive(t, b, pubsub.Subscription{Topic: "copied", Group: "g", Start: pubsub.FromEarliest()}, 3)
	if !reflect.DeepEqual(back[0], sent) {
		t.Errorf("after its way through the other client:\n%.3000v, want\n%.3000v", back[0], sent)
	}
	if back[1].Payload != nil || back[2].Payload == nil {
		t.Errorf("payloads %v and %v, want nil and an empty one", back[1].Payload, back[2].Payload)
	}
}

// What another client publishes is read as it is.
func TestForeignClientPublishes(t *testing.T) {
	s := startServer(t, "default")
	b := s.open(t)
	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "theirs"}}}); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("ü", 4000)
	javaScript(t, []foreign{
		{"theirs", []byte("\x00\xff"), [][2]string{
			{"Nats-Msg-Id", "m1"}, {"Content-Type", "text/plain"}, {"Omnibus-Key", "k"}, {"x-twice", "a"}, {"x-Case", "B"}, {"x-case", "b"}, {"x-twice", "c"},
			{"x-empty", ""}, {"x-percent", "100% %41"}, {"x-unicode", "Grüße ☃"}, {"x-long", long},
		}},
		{"theirs", []byte{}, [][2]string{}},
	}, s.URL(), "publish")
	got := adaptertest.Receive(t, b, pubsub.Subscription{Topic: "theirs", Group: "g", Start: pubsub.FromEarliest()}, 2)
	m := got[0]
	if string(m.Payload) != "\x00\xff" || m.ID != "m1" || m.Key != "k" || m.ContentType != "text/plain" {
		t.Errorf("got %+v", m)
	}
	want := []pubsub.Header{
		{Name: "Nats-Msg-Id", Value: "m1"}, {Name: "x-Case", Value: "B"}, {Name: "x-case", Value: "b"}, {Name: "x-empty"}, {Name: "x-long", Value: long},
		{Name: "x-percent", Value: "100% %41"}, {Name: "x-twice", Value: "a"}, {Name: "x-twice", Value: "c"}, {Name: "x-unicode", Value: "Grüße ☃"},
	}
	if len(m.Headers) != len(want) {
		t.Fatalf("%d headers, want %d", len(m.Headers), len(want))
	}
	for i, h := range m.Headers {
		if h != want[i] {
			t.Errorf("header %.100q, want %.100q", h, want[i])
		}
	}
	if got[1].Payload == nil || len(got[1].Payload) != 0 || len(got[1].Headers) != 0 {
		t.Errorf("got %+v, want an empty message", got[1])
	}
}
