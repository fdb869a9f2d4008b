package redisstreams_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

// port is that of the only node.
func (s *server) port(t *testing.T) string {
	t.Helper()
	_, hosts, _ := strings.Cut(s.URL(), "://")
	host, _, _ := strings.Cut(hosts, "?")
	_, port, err := net.SplitHostPort(strings.TrimSuffix(host, "/"))
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// other runs another client.
func other(t *testing.T, stdin []byte, env, name string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	if env != "" {
		cmd.Env = append(os.Environ(), env)
	}
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v (`make setup` gets the clients in other languages)\n%s", name, args, err, &stderr)
	}
	return out
}

// python runs the client that `make setup` has put into build/clients.
func python(t *testing.T, s *server, in any, what, stream string) []byte {
	t.Helper()
	modules, err := filepath.Abs("../build/clients/redis/python")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	return other(t, text, "PYTHONPATH="+modules, "python3", "testdata/client.py", s.port(t), what, stream)
}

// A received collects what a subscription gets.
type received struct {
	mu  sync.Mutex
	all []pubsub.Message
}

func (r *received) handle(_ context.Context, d *pubsub.Delivery) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, d.Clone())
	return nil
}

func (r *received) await(t *testing.T, n int) []pubsub.Message {
	t.Helper()
	poll.Until(t, fmt.Sprintf("%d messages have come", n), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.all) >= n
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

func mustSubscribe(t *testing.T, b *pubsub.Broker, s pubsub.Subscription, h pubsub.Handler) *pubsub.Consumer {
	t.Helper()
	c, err := b.Subscribe(t.Context(), s, h)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Python and redis-cli write messages that we read, and read those that we write.
func TestOtherClients(t *testing.T) {
	s := startServer(t, "default")
	b := s.open(t)
	var got received
	mustSubscribe(t, b, pubsub.Subscription{Topic: "orders", Group: "g"}, got.handle)
	python(t, s, [][][2][]byte{
		{{[]byte("payload"), []byte("\x00\xff")}, {[]byte("a"), []byte("1")}, {[]byte("b"), []byte("\xfe")}, {[]byte("a"), []byte("2")}, {[]byte(":key"), []byte("k")}},
		{{[]byte("user"), []byte("7")}},
	}, "publish", "orders")
	other(t, nil, "", "redis-cli", "-p", s.port(t), "XADD", "orders", "*", "payload", "from redis-cli", ":type", "greeting", ":id", "m-1")
	for i, m := range got.await(t, 3) {
		want := []pubsub.Message{
			{Key: "k", Payload: []byte("\x00\xff"), Headers: pubsub.Headers{{Name: "a", Value: "1"}, {Name: "b", Value: "\xfe"}, {Name: "a", Value: "2"}}},
			{Headers: pubsub.Headers{{Name: "user", Value: "7"}}},
			{ID: "m-1", Type: "greeting", Payload: []byte("from redis-cli")},
		}[i]
		if !reflect.DeepEqual(m, want) {
			t.Errorf("got  %#v\nwant %#v", m, want)
		}
	}

	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "invoices"}}}); err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_700_000_000, 5).UTC()
	ours := pubsub.Message{ID: "i-1", Key: "k", Type: "invoice", ContentType: "text/plain", Time: at, Payload: []byte("\x00paid"), Headers: pubsub.Headers{{Name: "x", Value: "y"}}}
	if err := b.Publish(t.Context(), "invoices", ours); err != nil {
		t.Fatal(err)
	}
	var read [][][2][]byte
	if err := json.Unmarshal(python(t, s, nil, "read", "invoices"), &read); err != nil {
		t.Fatal(err)
	}
	want := [][2]string{{":id", "i-1"}, {":at", "1700000000000000005"}, {":key", "k"}, {":type", "invoice"}, {":mime", "text/plain"}, {"x", "y"}, {"payload", "\x00paid"}}
	if len(read) != 1 || len(read[0]) != len(want) {
		t.Fatalf("Python reads %q", read)
	}
	for i, f := range read[0] {
		if string(f[0]) != want[i][0] || string(f[1]) != want[i][1] {
			t.Errorf("Python reads %q, want %q", f, want[i])
		}
	}
	if out := string(other(t, nil, "", "redis-cli", "-p", s.port(t), "XRANGE", "invoices", "-", "+")); !strings.Contains(out, "\n:type\ninvoice\n") || !strings.Contains(out, "\nx\ny\n") {
		t.Errorf("redis-cli reads %q", out)
	}
}

// An entry that nobody understands goes to the dead letters as it is, and does not hold up the next one.
func TestMalformedEntry(t *testing.T) {
	s := startServer(t, "default")
	b := s.open(t)
	var got received
	mustSubscribe(t, b, pubsub.Subscription{Topic: "orders", Group: "g"}, got.handle)
	c := s.client(t)
	for _, fields := range [][]string{{":at", "yesterday", "payload", "bad", "a", "b"}, {"payload", "good"}} {
		if err := c.XAdd(t.Context(), &redis.XAddArgs{Stream: "orders", Values: fields}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	if m := got.await(t, 1)[0]; string(m.Payload) != "good" || time.Since(begin) > time.Second {
		t.Errorf("%q came after %v", m.Payload, time.Since(begin))
	}
	poll.Until(t, "the dead letter is there", func() bool { return len(adaptertest.DeadLetters(t, b, "orders", "g")) == 1 })
	m := adaptertest.DeadLetters(t, b, "orders", "g")[0].Msg
	if string(m.Payload) != "bad" || m.Headers.Get(":at") != "yesterday" || m.Headers.Get("a") != "b" || m.Headers.Get("omnibus-dlq-reason") != "undecodable" {
		t.Errorf("the dead letter is %+v", m)
	}
}
