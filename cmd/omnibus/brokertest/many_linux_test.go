package brokertest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	many    = 10_000
	looks   = 100 // at the first of them; every tenth is at all
	page    = 250
	kills   = 3
	flying  = 256  // how many a replay has on their way, as docs/dlq.md says
	perSec  = 1000 // it sends, so that a kill strikes it in the middle
	payload = 512  // bytes at the most
)

// TestMany is what an operator does with 10,000 dead letters: he looks at them a hundred times, replays them at a terminal, and the replay is killed three
// times, at points that SEED repeats. What comes back is what went in. The program has no race detector in it: here it is to be as fast as it is.
func TestMany(t *testing.T) {
	seed := rand.Uint64() >> 11
	if text := os.Getenv("SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	program := build(t)
	for _, kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Logf("SEED=%d repeats what is drawn", seed)
			b := containers.ForTest(t, kind, "default")
			c := command{program: program, dir: t.TempDir(), url: b.URL(), topic: fmt.Sprintf("orders-%d", time.Now().UnixNano())}
			m := &multitude{person: person{command: c}, random: rand.New(rand.NewPCG(seed, seed)), sent: map[string]pubsub.Message{}}
			t.Run("letters", m.test)
		})
	}
}

// A multitude is many messages, what somebody does with them, and what comes back.
type multitude struct {
	person

	random *rand.Rand
	sent   map[string]pubsub.Message // by their IDs

	mu   sync.Mutex
	came []pubsub.Message
	last time.Time // when
}

func (m *multitude) test(t *testing.T) {
	b, err := brokers.Open(t.Context(), m.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	m.giveUp(t, b)

	c := m.command
	exported := c.digest(t, "dlq", "export", c.topic, "billing")
	m.isListed(t, c.run(t, 0, "", "dlq", "list", c.topic, "billing", "--json"))
	whole, first := []string{"dlq", "list", c.topic, "billing"}, []string{"dlq", "list", c.topic, "billing", "--count", strconv.Itoa(page)}
	all, some := c.digest(t, whole...), c.digest(t, first...)
	for i := range looks {
		look, want := first, some
		if i%10 == 9 {
			look, want = whole, all
		}
		if c.digest(t, look...) != want {
			t.Fatalf("after %d looks omnibus %s says something else", i+2, strings.Join(look, " "))
		}
	}
	m.sees(t, m.types(t, nil, "dlq", "groups", c.topic, "billing"),
		fmt.Sprintf(`^v1-\w+ +%d +%[1]d +open .* the payment gateway timed out$`, many*9/10), fmt.Sprintf(`^v1-\w+ +%d +%[1]d +open .* the card was declined$`, many/10))

	m.replay(t)
	if c.digest(t, "dlq", "export", c.topic, "billing") != exported {
		t.Error("the dead letters are not what they were before they were replayed")
	}
	m.collect(t, b)
	if out := c.run(t, 0, "", "dlq", "list", c.topic, "billing", "--state", "resolved"); strings.Count(out, "\n") != 1+many {
		t.Errorf("%d lines tell of what is resolved", strings.Count(out, "\n"))
	}
}

// giveUp makes the dead letters: messages of any bytes that a handler gives up.
func (m *multitude) giveUp(t *testing.T, b *pubsub.Broker) {
	t.Helper()
	var gone atomic.Int64
	consumer, err := b.Subscribe(t.Context(), pubsub.Subscription{Topic: m.topic, Group: "billing",
		DeadLetter: pubsub.DeadLetter{OnDeadLetter: func(*pubsub.Delivery, error) { gone.Add(1) }},
	}, func(_ context.Context, d *pubsub.Delivery) error {
		if d.Type == "order.declined" {
			return pubsub.Permanent(declinedError{})
		}
		return pubsub.Permanent(timeoutError{})
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []pubsub.Message
	for i := range many {
		x := pubsub.Message{ID: fmt.Sprintf("ord-%05d", i), Type: "order.placed", Key: fmt.Sprintf("c-%03d", i%500), Payload: m.bytes(payload),
			ContentType: "application/octet-stream", Time: time.Unix(1_700_000_000+int64(i), 0).UTC()}
		if i%10 == 9 {
			x.Type = "order.declined"
		}
		for range m.random.IntN(4) { // names may come twice
			x.Headers = append(x.Headers, pubsub.Header{Name: fmt.Sprint("x-", m.random.IntN(3)), Value: string(m.bytes(30))})
		}
		all = append(all, x)
		m.sent[x.ID] = x
	}
	for chunk := range slices.Chunk(all, 500) {
		if err := b.PublishBatch(t.Context(), m.topic, chunk); err != nil {
			t.Fatal(err)
		}
	}
	poll.Within(t, 2*time.Minute, "the last of the dead letters", func() bool { return gone.Load() >= many })
	if err := consumer.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// bytes are any, at most so many, and some of them no UTF-8.
func (m *multitude) bytes(most int) []byte {
	b := make([]byte, m.random.IntN(most+1))
	for i := range b {
		b[i] = byte(m.random.Uint32())
	}
	return b
}

// isListed says that each message is there once.
func (m *multitude) isListed(t *testing.T, list string) {
	t.Helper()
	ids := map[string]struct{}{}
	for line := range strings.Lines(list) {
		var l struct{ Message struct{ ID string } }
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		ids[l.Message.ID] = struct{}{}
	}
	if n := strings.Count(list, "\n"); n != many || len(ids) != many {
		t.Fatalf("%d dead letters of %d messages are listed, want %d", n, len(ids), many)
	}
}

// digest is what the program prints, in short.
func (c command) digest(t *testing.T, args ...string) (sum [sha256.Size]byte) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), c.program, args...)
	h, errs := sha256.New(), &bytes.Buffer{}
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = c.dir, append(os.Environ(), "OMNIBUS_URL="+c.url), h, errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("omnibus %s: %v\n%s", strings.Join(args, " "), err, errs)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// replay sends all of them again at a terminal. The process is killed on its way, and each time another one goes on.
func (m *multitude) replay(t *testing.T) {
	t.Helper()
	var points []int
	for i := range kills { // each well behind the one before, and the last well before the end: a process goes on for a moment until it is dead
		points = append(points, many*(5+25*i)/100+m.random.IntN(many*15/100))
	}
	t.Logf("it is killed at %d", points)
	args := []string{"dlq", "replay", m.topic, "billing", "--rate", fmt.Sprint(perSec), "--journal", "replay.journal"}
	for _, point := range points {
		s := m.types(t, func(cmd *exec.Cmd, tty typist, s *screen) {
			if strings.HasSuffix(string(s.line), "[y/N] ") {
				tty.answer("y\n")
			}
			if doneOf(s) >= point && saysWhen(s) {
				_ = cmd.Process.Kill()
			}
		}, args...)
		if done := doneOf(s); done < point || done == many || !saysWhen(s) {
			t.Fatalf("killed at %d of %d:\n%s", done, many, s.text(0))
		}
		args = []string{"dlq", "resume", m.topic, "billing", "replay.journal", "--rate", fmt.Sprint(perSec)}
	}
	m.sees(t, m.types(t, nil, args...), fmt.Sprintf(`^%d of %[1]d replayed, 0 failed`, many))
}

// saysWhen says whether the bar has told how long the rest takes.
func saysWhen(s *screen) bool {
	return slices.ContainsFunc(s.frames, func(f frame) bool { return strings.HasSuffix(f.text, " left") })
}

// collect lets the group's handler succeed, and compares what it gets with what was published.
func (m *multitude) collect(t *testing.T, b *pubsub.Broker) {
	t.Helper()
	consumer, err := b.Subscribe(t.Context(), pubsub.Subscription{Topic: m.topic, Group: "billing"}, func(_ context.Context, d *pubsub.Delivery) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.came, m.last = append(m.came, d.Message.Clone()), time.Now()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	const quiet, late = 3 * time.Second, 20 * time.Second // then nothing comes twice any more, or what is missing does not come
	poll.Within(t, 2*time.Minute, "the end of what was replayed", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		since := time.Since(m.last)
		return len(m.came) >= many && since > quiet || len(m.came) > 0 && since > late
	})
	if err := consumer.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}

	times, latest := map[string]int{}, map[string]string{}
	for _, got := range m.came {
		if times[got.ID]++; times[got.ID] > 1 {
			continue
		}
		if got.ID < latest[got.Key] {
			t.Errorf("of key %s came %s behind %s", got.Key, got.ID, latest[got.Key])
		}
		latest[got.Key] = got.ID
		got.Headers = slices.DeleteFunc(got.Headers, func(h pubsub.Header) bool { return strings.HasPrefix(h.Name, "omnibus-replay") })
		if want := m.sent[got.ID]; !same(got, want) {
			t.Errorf("came back %+v\nwent in %+v", got, want)
		}
		if t.Failed() {
			t.FailNow() // one says enough
		}
	}
	if len(times) != many {
		t.Errorf("%d different messages came back, want %d", len(times), many)
	}
	bound := kills * flying
	if b.Capabilities().Dedup > 0 {
		bound = 0
	}
	t.Logf("%d came twice, %d could", len(m.came)-len(times), bound)
	if repeats := len(m.came) - len(times); repeats > bound || slices.Max(slices.Collect(maps.Values(times))) > 1+kills {
		t.Errorf("%d came more than once, of %d that were on their way", repeats, bound)
	}
}

// same compares every byte.
func same(a, b pubsub.Message) bool {
	return a.ID == b.ID && a.Type == b.Type && a.Key == b.Key && a.ContentType == b.ContentType && a.Time.Equal(b.Time) &&
		bytes.Equal(a.Payload, b.Payload) && slices.Equal(a.Headers, b.Headers)
}
