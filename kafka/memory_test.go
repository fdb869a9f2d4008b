package kafka_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

// TestMemoryIsBounded reads a log that is long, with handlers that are slow, in a process of its own: it never needs 64 MiB more than when it began.
func TestMemoryIsBounded(t *testing.T) {
	const payload, allowed = 10 << 10, 64 << 20
	s := startServer(t, "default")
	b := s.open(t)
	topic := unique("memory")
	f := fate{
		URL: s.address(t, nil), Topic: topic, Group: "g", Concurrency: 8, MaxInFlight: 100_000, MaxInFlightBytes: 8 << 20, AckWait: 30 * time.Second,
		Busy: 10 * time.Millisecond, Weighs: true,
	}
	spec := pubsub.TopicSpec{Name: topic, Partitions: 4}
	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{spec}, Groups: []pubsub.Subscription{f.subscription()}}); err != nil {
		t.Fatal(err)
	}
	var first, most, handled atomic.Int64
	x := f.start(t, withoutRace(t), func(word, rest string) {
		switch word {
		case "done":
			handled.Add(1)
		case "weighs":
			n, _ := strconv.ParseInt(rest, 10, 64)
			first.CompareAndSwap(0, n)
			most.Store(max(most.Load(), n)) // nobody else stores
		}
	})
	poll.Until(t, "what it weighs", func() bool { return first.Load() != 0 })
	lasts := 6 * time.Second
	if whole() {
		lasts = 2 * time.Minute
	}
	batch := make([]pubsub.Message, 100)
	for i := range batch {
		batch[i].Payload = make([]byte, payload)
	}
	sent := int64(0)
	for end := time.Now().Add(lasts); time.Now().Before(end); {
		// there is much more to read than it may hold
		if !poll.Holds(time.Until(end), func() bool { return sent-handled.Load() <= 64<<20/payload }) {
			break
		}
		if err := b.PublishBatch(context.WithoutCancel(t.Context()), topic, batch); err != nil {
			t.Fatal(err)
		}
		sent += int64(len(batch))
	}
	x.quit(t)
	t.Logf("%d messages of 10 KiB in %v: %d MiB at the beginning, %d MiB at most", handled.Load(), lasts, first.Load()>>20, most.Load()>>20)
	if handled.Load() < int64(lasts.Seconds()*100) {
		t.Errorf("only %d messages were handled", handled.Load())
	}
	if most.Load() > first.Load()+allowed {
		t.Errorf("it had %d MiB at the beginning, and %d MiB later", first.Load()>>20, most.Load()>>20)
	}
}

// withoutRace is this program without the race detector, which needs several times the memory.
func withoutRace(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kafka.test")
	if out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-race=false", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("building it: %v\n%s", err, out)
	}
	return path
}
