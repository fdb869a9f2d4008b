package kafka_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// java runs a program of testdata with the client that `make setup` has put into build/clients.
func java(t *testing.T, program, input string, args ...string) string {
	t.Helper()
	libs, err := filepath.Abs("../build/clients/kafka/libs")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(libs); err != nil {
		t.Fatalf("there is no Java client: `make setup` gets it (%v)", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "java", append([]string{"-XX:TieredStopAtLevel=1", "-cp", libs + "/*", "testdata/" + program}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("java %s %q: %v\n%s", program, args, err, &stderr)
	}
	return string(out)
}

// A javaMessage is one as testdata/Exchange.java writes it down.
type javaMessage struct {
	topic      string
	partition  int // -1 = the client finds it
	key, value []byte
	headers    []javaHeader
}

type javaHeader struct {
	name  string
	value []byte
}

func javaWord(b []byte) string {
	if b == nil {
		return "-"
	}
	return ":" + base64.StdEncoding.EncodeToString(b)
}

func javaBytes(t *testing.T, word string) []byte {
	t.Helper()
	text, ok := strings.CutPrefix(word, ":")
	if !ok {
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// javaWrite publishes with the Java client.
func javaWrite(t *testing.T, s *server, list []javaMessage) {
	t.Helper()
	var input strings.Builder
	for _, m := range list {
		partition := "-"
		if m.partition >= 0 {
			partition = strconv.Itoa(m.partition)
		}
		fmt.Fprintf(&input, "%s %s %s %s", m.topic, partition, javaWord(m.key), javaWord(m.value))
		for _, h := range m.headers {
			fmt.Fprintf(&input, " %s %s", javaWord([]byte(h.name)), javaWord(h.value))
		}
		input.WriteByte('\n')
	}
	java(t, "Exchange.java", input.String(), "write", s.hosts())
}

// javaRead reads what lies in topics with the Java client: so many messages of each, written topic=count.
func javaRead(t *testing.T, s *server, topics ...string) (list []javaMessage) {
	t.Helper()
	for line := range strings.Lines(java(t, "Exchange.java", "", append([]string{"read", s.hosts()}, topics...)...)) {
		f := strings.Fields(line)
		m := javaMessage{topic: f[0], key: javaBytes(t, f[2]), value: javaBytes(t, f[3])}
		m.partition, _ = strconv.Atoi(f[1])
		for f = f[4:]; len(f) > 1; f = f[2:] {
			m.headers = append(m.headers, javaHeader{string(javaBytes(t, f[0])), javaBytes(t, f[1])})
		}
		list = append(list, m)
	}
	return list
}

// javaCases are messages with what a client may make something else of.
func javaCases() []pubsub.Message {
	awkward := string([]byte{0, 0xff, 0xc3, '\r', '\n'})
	return []pubsub.Message{
		{Key: "plain", Payload: []byte("text"), ContentType: "text/plain", Headers: pubsub.Headers{{Name: "a", Value: "1"}}},
		{Key: "Schlüssel ☃", Payload: []byte(awkward), ContentType: "x/y", Headers: pubsub.Headers{
			{Name: "twice", Value: "1"}, {Name: "ключ", Value: "v"}, {Name: "twice", Value: "2"}, {Name: "empty"}, {Name: "null", Kind: pubsub.HeaderNull},
			{Name: "bytes", Value: awkward}, {Name: " blanks ", Value: " x "},
		}},
		{Key: "empty", Payload: []byte{}, ContentType: "x/y", Headers: pubsub.Headers{{Name: "a", Value: "1"}}},
		{Key: "tombstone", ContentType: "x/y", Headers: pubsub.Headers{{Name: "a", Value: "1"}}},
		{Payload: []byte("no key"), ContentType: "x/y", Headers: pubsub.Headers{{Name: "a", Value: "1"}}},
	}
}

// TestJava exchanges messages with the Java client.
func TestJava(t *testing.T) {
	s := startServer(t, "default")
	b := s.open(t)

	// Keys, payloads, tombstones and headers: the user's stand behind ours.
	t.Run("reads what we publish", func(t *testing.T) {
		topic := unique("java-out")
		if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: topic}}}); err != nil {
			t.Fatal(err)
		}
		cases := javaCases()
		for i, m := range cases {
			m.ID, m.Time = fmt.Sprint("id", i), time.Unix(1_700_000_000, 5).UTC()
			if err := b.Publish(t.Context(), topic, m); err != nil {
				t.Fatal(err)
			}
		}
		for i, got := range javaRead(t, s, fmt.Sprint(topic, "=", len(cases))) {
			m := cases[i]
			want := javaMessage{topic: topic, value: m.Payload, headers: []javaHeader{
				{"omnibus-id", fmt.Append(nil, "id", i)}, {"omnibus-time", []byte("2023-11-14T22:13:20.000000005Z")}, {"content-type", []byte(m.ContentType)},
			}}
			if m.Key != "" {
				want.key = []byte(m.Key)
			}
			for _, h := range m.Headers {
				x := javaHeader{h.Name, []byte(h.Value)}
				if h.Kind == pubsub.HeaderNull {
					x.value = nil
				}
				want.headers = append(want.headers, x)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("the Java client sees %+v\nwant %+v", got, want)
			}
		}
	})

	t.Run("publishes what we read", func(t *testing.T) {
		topic := unique("java-in")
		cases := javaCases()
		got := make(chan pubsub.Message, 2*len(cases))
		_, err := b.Subscribe(t.Context(), pubsub.Subscription{Topic: topic, Group: "g"}, func(_ context.Context, d *pubsub.Delivery) error {
			got <- d.Message.Clone()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var list []javaMessage
		for _, m := range cases {
			x := javaMessage{topic: topic, partition: -1, value: m.Payload, headers: []javaHeader{{"content-type", []byte(m.ContentType)}}}
			if m.Key != "" {
				x.key = []byte(m.Key)
			}
			for _, h := range m.Headers {
				header := javaHeader{h.Name, []byte(h.Value)}
				if h.Kind == pubsub.HeaderNull {
					header.value = nil
				}
				x.headers = append(x.headers, header)
			}
			list = append(list, x)
		}
		javaWrite(t, s, list)
		for i, want := range cases {
			select {
			case m := <-got:
				if since := time.Since(m.Time); since < -time.Minute || since > time.Minute {
					t.Errorf("message %d is of %v", i, m.Time)
				}
				m.Time, want.Time = time.Time{}, time.Time{}
				if m.ID = ""; !reflect.DeepEqual(m, want) {
					t.Errorf("message %d of the Java client came as\n%+v, want\n%+v", i, m, want)
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("message %d of the Java client did not come", i)
			}
		}
	})

	// 1,000 keys in topics of 1, 3 and 12 partitions, ours and theirs, lie where testdata/partitions.txt says, which is what its generator says again.
	t.Run("puts keys where we do", func(t *testing.T) {
		if again := java(t, "Partitions.java", ""); again != javaPartitions {
			t.Error("testdata/Partitions.java does not say what is in testdata/partitions.txt")
		}
		var keys []string
		where := map[string][]string{} // by key: the partition of 1, of 3 and of 12
		for line := range strings.Lines(javaPartitions) {
			f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
			keys = append(keys, f[0])
			where[f[0]] = f[1:]
		}
		counts := []int{1, 3, 12}
		var topics, asked []string // two of each count
		var theirs []javaMessage
		for _, n := range counts {
			ours, java := unique(fmt.Sprint("ours", n)), unique(fmt.Sprint("java", n))
			err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: ours, Partitions: n}, {Name: java, Partitions: n}}})
			if err != nil {
				t.Fatal(err)
			}
			var list []pubsub.Message
			for _, key := range keys {
				list = append(list, pubsub.Message{Key: key})
				theirs = append(theirs, javaMessage{topic: java, partition: -1, key: []byte(key)})
			}
			if err := b.PublishBatch(t.Context(), ours, list); err != nil {
				t.Fatal(err)
			}
			topics = append(topics, ours, java)
			asked = append(asked, fmt.Sprint(ours, "=", len(keys)), fmt.Sprint(java, "=", len(keys)))
		}
		javaWrite(t, s, theirs)
		seen := map[string]bool{}
		for _, m := range javaRead(t, s, asked...) {
			at := slices.Index(topics, m.topic)
			if want := where[string(m.key)][at/2]; strconv.Itoa(m.partition) != want {
				t.Errorf("%s: key %q lies in partition %d of %d, want %s", m.topic, m.key, m.partition, counts[at/2], want)
			}
			seen[m.topic+" "+string(m.key)] = true
		}
		if want := len(topics) * len(where); len(seen) != want {
			t.Errorf("%d keys were seen, want %d", len(seen), want)
		}
	})
}
