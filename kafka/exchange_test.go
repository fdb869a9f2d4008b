package kafka_test

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// kcat runs the command line of librdkafka, another implementation of the protocol, with what it is to read.
func kcat(t *testing.T, s *server, input string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("kcat")
	if err != nil {
		t.Fatalf("there is no client of librdkafka: `make setup` gets it (%v)", err)
	}
	cmd := exec.CommandContext(t.Context(), path, append([]string{"-q", "-b", s.hosts()}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kcat %q: %v\n%s", args, err, &stderr)
	}
	return string(out)
}

// hosts are the addresses alone, as other clients take them.
func (s *server) hosts() string {
	_, hosts, _ := strings.Cut(s.URL(), "://")
	hosts, _, _ = strings.Cut(hosts, "?")
	return hosts
}

// unique is a topic that no other run has: the broker may be given by URL.
func unique(name string) string { return fmt.Sprintf("exchange.%s-%x", name, time.Now().UnixNano()) }

// TestKcatReadsWhatWePublish compares keys, headers, payloads, tombstones and partitions with what librdkafka sees, and where it puts the same keys.
func TestKcatReadsWhatWePublish(t *testing.T) {
	s := startServer(t, "default")
	b := s.open(t)
	topic := unique("out")
	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: topic, Partitions: 3}, {Name: topic + ".kcat", Partitions: 3}}}); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for i := range 25 {
		keys = append(keys, strings.Repeat("k", i%7+1)+"-ü-"+string(rune('a'+i)))
	}
	for _, key := range keys {
		m := pubsub.Message{Key: key, Payload: []byte("for " + key), Headers: pubsub.Headers{{Name: "x", Value: "1"}, {Name: "x", Value: "2"}, {Name: "none", Kind: pubsub.HeaderNull}}}
		if err := b.Publish(t.Context(), topic, m); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range []pubsub.Message{{ID: "gone", Key: "gone"}, {ID: "empty", Key: "empty", Payload: []byte{}}} {
		if err := b.Publish(t.Context(), topic, m); err != nil {
			t.Fatal(err)
		}
	}
	out := kcat(t, s, "", "-C", "-t", topic, "-e", "-f", "%p|%k|%S|%s|%h\n")
	where := map[string]string{}
	for line := range strings.Lines(out) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), "|", 5)
		where[f[1]] = f[0]
		switch {
		case f[1] == "gone" && f[2] != "-1":
			t.Errorf("librdkafka sees a tombstone as %s bytes", f[2])
		case f[1] == "empty" && f[2] != "0":
			t.Errorf("librdkafka sees an empty payload as %s bytes", f[2])
		case f[1] == "gone", f[1] == "empty":
		case f[3] != "for "+f[1] || !strings.HasSuffix(f[4], ",x=1,x=2,none=NULL"):
			t.Errorf("librdkafka sees %q", line)
		}
	}
	if len(where) != len(keys)+2 {
		t.Errorf("librdkafka sees %d keys, want %d", len(where), len(keys)+2)
	}
	var input strings.Builder
	for _, key := range keys {
		input.WriteString(key + "|x\n")
	}
	kcat(t, s, input.String(), "-P", "-t", topic+".kcat", "-K", "|", "-X", "partitioner=murmur2")
	for line := range strings.Lines(kcat(t, s, "", "-C", "-t", topic+".kcat", "-e", "-f", "%p|%k\n")) {
		p, key, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "|")
		if where[key] != p {
			t.Errorf("librdkafka puts the key %q into partition %s, the adapter into %s", key, p, where[key])
		}
	}
}

// TestKcatPublishesWhatWeRead reads what librdkafka has written: keys, repeated headers, null and empty payloads.
func TestKcatPublishesWhatWeRead(t *testing.T) {
	s := startServer(t, "default")
	b := s.open(t)
	topic := unique("in")
	got := make(chan pubsub.Message, 10)
	_, err := b.Subscribe(t.Context(), pubsub.Subscription{Topic: topic, Group: "g"}, func(_ context.Context, d *pubsub.Delivery) error {
		got <- d.Message.Clone()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	kcat(t, s, "a|one\nb|\n", "-P", "-t", topic, "-K", "|", "-H", "x=1", "-H", "x=2", "-H", "e=")
	kcat(t, s, "c|\n", "-P", "-t", topic, "-K", "|", "-Z")
	want := []pubsub.Message{{Key: "a", Payload: []byte("one")}, {Key: "b", Payload: []byte{}}, {Key: "c"}}
	for i := range want {
		if i < 2 {
			want[i].Headers = pubsub.Headers{{Name: "x", Value: "1"}, {Name: "x", Value: "2"}, {Name: "e"}}
		}
		select {
		case m := <-got:
			if m.Key != want[i].Key || !bytes.Equal(m.Payload, want[i].Payload) || (m.Payload == nil) != (want[i].Payload == nil) || !slices.Equal(m.Headers, want[i].Headers) {
				t.Errorf("librdkafka's message %d came as %+v, want %+v", i, m, want[i])
			}
			if since := time.Since(m.Time); since < -time.Minute || since > time.Minute {
				t.Errorf("its time is %v", m.Time)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("message %d of librdkafka did not come", i)
		}
	}
}
