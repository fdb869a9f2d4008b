package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// beside is another process: a world that shares the brokers of w.
func (w *world) beside() *world {
	w.t.Helper()
	other := newWorld(w.t)
	other.app.mux = w.app.mux
	return other
}

// A job is a command that runs beside the test.
type job struct {
	*world
	interrupt context.CancelFunc
	exit      chan int
}

func (w *world) start(stdin io.Reader, args ...string) *job {
	w.t.Helper()
	other := w.beside()
	ctx, cancel := context.WithCancel(w.t.Context())
	j := &job{other, cancel, make(chan int, 1)}
	other.app.in = stdin
	go func() { j.exit <- other.app.run(ctx, args) }()
	w.t.Cleanup(cancel)
	return j
}

// ends waits for the job's end.
func (j *job) ends(want int) {
	j.t.Helper()
	select {
	case code := <-j.exit:
		if code != want {
			j.t.Errorf("it exits with %d, want %d: %s%s", code, want, j.out.String(), j.errs.String())
		}
	case <-time.After(20 * time.Second):
		j.t.Fatalf("it does not end: %s%s", j.out.String(), j.errs.String())
	}
}

// payloads are those of the messages that a command has written as JSON.
func payloads(t *testing.T, out string) (all []string) {
	t.Helper()
	for line := range strings.Lines(out) {
		var m message
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, string(*m.Payload))
	}
	return all
}

func numbers(from, to int) (all []string) {
	for i := from; i < to; i++ {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

func lines(all []string) string { return strings.Join(all, "\n") + "\n" }

func TestTailShowsWhatIsPublishedNow(t *testing.T) {
	w := newWorld(t)
	w.must("ensure", "orders")
	w.must("pub", "orders", "before")
	tail := w.start(nil, "sub", "orders", "--json")
	n := 0
	poll.Until(w.t, "a message", func() bool { // what is published before it is live does not come
		w.must("pub", "orders", fmt.Sprint(n))
		n++
		return tail.out.String() != ""
	})
	w.must("pub", "orders", "last")
	poll.Until(w.t, "the last message", func() bool { return strings.Contains(tail.out.String(), `"last"`) })
	tail.interrupt()
	tail.ends(exitOK)
	got := payloads(t, tail.out.String())
	if want := append(numbers(n-len(got)+1, n), "last"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What is published while sub turns from what was kept to what is new comes once, whichever of the two has it.
func TestFollowMissesNothingAndRepeatsNothing(t *testing.T) {
	w := newWorld(t)
	server := memory.NewServer(memory.Config{})
	other, err := server.Open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	next := 0
	publish := func() {
		for range 10 {
			if err := other.Publish(t.Context(), "orders", pubsub.Message{Key: "a", Payload: []byte(fmt.Sprint(next))}); err != nil {
				t.Error(err)
			}
			next++
		}
	}
	w.app.mux = pubsub.Mux{{Schemes: []string{"mem"}, Open: func(ctx context.Context, _ string, opts *pubsub.Options) (*pubsub.Broker, error) {
		return pubsub.New(ctx, &turning{server.Driver().(everything), publish}, opts)
	}}}
	w.must("ensure", "orders")
	publish()
	if got := payloads(t, w.must("sub", "orders", "--from", "earliest", "--follow", "--count", "30", "--json")); !slices.Equal(got, numbers(0, 30)) {
		t.Errorf("got %q", got)
	}
}

// Of what was kept it remembers how far each partition was shown, not every message.
func TestPassed(t *testing.T) {
	seen := passed{}
	at := func(a, b int64, partition int32) pubsub.Position { return pubsub.NewPosition(7, a, b, partition) }
	for i := range int64(1000) {
		seen.note(at(i, 0, 1))
		seen.note(at(5, i, 2))
	}
	seen.note(at(5, 3, 2)) // out of its turn
	for p, want := range map[pubsub.Position]bool{
		at(0, 0, 1): true, at(999, 0, 1): true, at(1000, 0, 1): false,
		at(4, 5000, 2): true, at(5, 999, 2): true, at(5, 1000, 2): false, at(6, 0, 2): false, at(5, -1, 2): false, // that is the largest
		at(0, 0, 3): false, pubsub.NewPosition(8, 0, 0, 1): false,
	} {
		if seen.has(p) != want {
			t.Errorf("it has seen %v: %v", p, !want)
		}
	}
	if len(seen) != 2 {
		t.Errorf("it remembers %d", len(seen))
	}
}

type everything interface {
	pubsub.Driver
	pubsub.Browser
	pubsub.Lagger
	pubsub.Seeker
}

// A turning publishes before a topic is looked at, and again once its first message was shown.
type turning struct {
	everything
	publish func()
}

func (d *turning) Browse(ctx context.Context, p pubsub.Place, from pubsub.Position) iter.Seq2[pubsub.Record, error] {
	return func(yield func(pubsub.Record, error) bool) {
		d.publish()
		again := sync.OnceFunc(d.publish)
		for r, err := range d.everything.Browse(ctx, p, from) {
			if !yield(r, err) {
				return
			}
			again()
		}
	}
}

// What ends before it has shown all that was kept is no success.
func TestInterruptedHistory(t *testing.T) {
	w := newWorld(t)
	server := memory.NewServer(memory.Config{})
	ctx, interrupt := context.WithCancel(t.Context())
	shown := 0
	w.app.mux = pubsub.Mux{{Schemes: []string{"mem"}, Open: func(ctx context.Context, _ string, opts *pubsub.Options) (*pubsub.Broker, error) {
		return pubsub.New(ctx, &turning{server.Driver().(everything), func() {
			if shown++; shown == 2 { // the first message is shown
				interrupt()
			}
		}}, opts)
	}}}
	w.must("ensure", "orders")
	w.runWith(lines(numbers(0, 100)), "pub", "orders", "--lines")
	w.ctx = ctx
	out, errs, code := w.run("sub", "orders", "--from", "earliest", "--json")
	if n := len(payloads(t, out)); code != exitInterrupted || n == 0 || n == 100 {
		t.Errorf("it exits with %d after %d messages: %s", code, n, errs)
	}
}

func TestFromATime(t *testing.T) {
	w := newWorld(t)
	w.must("ensure", "orders")
	w.must("pub", "orders", "old")
	w.app.now = func() time.Time { return time.Now().Add(time.Hour) }
	if out := w.must("sub", "orders", "--from", "30m", "--json"); out != "" {
		t.Errorf("a message of an hour ago is within half an hour: %s", out)
	}
	for _, from := range []string{"90m", "2020-01-01T00:00:00Z", "1.0.0.0"} {
		if out := w.must("sub", "orders", "--from", from, "--json"); len(payloads(t, out)) != 1 {
			t.Errorf("--from %s: %q", from, out)
		}
	}
}

func TestInterruptedMemberLosesNothing(t *testing.T) {
	const all = 400
	w := newWorld(t)
	w.must("ensure", "orders", "--group", "billing")
	w.runWith(lines(numbers(0, all)), "pub", "orders", "--lines", "--key", "a")
	sub := w.start(nil, "sub", "orders", "--group", "billing", "--follow", "--json")
	poll.Until(w.t, "a few messages", func() bool { return strings.Count(sub.out.String(), "\n") > 10 })
	sub.interrupt()
	sub.ends(exitOK)
	got := payloads(t, sub.out.String())
	rest := payloads(t, w.must("sub", "orders", "--group", "billing", "--idle", "200ms", "--json"))
	if !slices.Equal(append(got, rest...), numbers(0, all)) {
		t.Errorf("%d messages before the interrupt and %d after it are not the %d that were published, each once", len(got), len(rest), all)
	}
}

// A full is an output that takes so many lines.
type full struct {
	buffer
	left int
}

func (f *full) Write(p []byte) (int, error) {
	if f.left--; f.left < 0 {
		return 0, errors.New("no space left")
	}
	return f.buffer.Write(p)
}

func TestWhatCannotBeWrittenIsNotAcked(t *testing.T) {
	w := newWorld(t)
	w.must("ensure", "orders", "--group", "billing")
	w.runWith(lines(numbers(0, 10)), "pub", "orders", "--lines", "--key", "a")
	other := w.beside()
	other.app.out.w = &full{left: 3}
	if _, errs, code := other.run("sub", "orders", "--group", "billing", "--json"); code != exitFailed || !strings.Contains(errs, "no space left") {
		t.Errorf("it exits with %d and %q", code, errs)
	}
	if got := payloads(t, w.must("sub", "orders", "--group", "billing", "--idle", "200ms", "--json")); !slices.Equal(got, numbers(3, 10)) {
		t.Errorf("after 3 that were written come %q", got)
	}
}

func TestInterruptedPubStoresWhatItHasRead(t *testing.T) {
	w := newWorld(t)
	w.must("ensure", "orders")
	in, feed := io.Pipe()
	defer feed.Close()
	pub := w.start(in, "pub", "orders", "--lines", "--json")
	fmt.Fprint(feed, "one\ntwo\nthr")
	poll.Until(w.t, "two confirmations", func() bool { return strings.Count(pub.out.String(), "\n") == 2 })
	pub.interrupt()
	pub.ends(exitInterrupted)
	if got := payloads(t, w.must("sub", "orders", "--from", "earliest", "--json")); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("stored are %q", got)
	}
}

func TestWatch(t *testing.T) {
	w := newWorld(t)
	w.must("ensure", "orders", "--group", "billing")
	watch := w.start(nil, "lag", "orders", "billing", "--watch", "--every", "5ms", "--json")
	poll.Until(w.t, "a lag of 0", func() bool { return strings.Contains(watch.out.String(), `"messages":0`) })
	w.must("pub", "orders", "x")
	poll.Until(w.t, "a lag of 1", func() bool { return strings.Contains(watch.out.String(), `"messages":1`) })
	watch.interrupt()
	watch.ends(exitOK)
}

// Any bytes come through sub --json and pub --jsonl as they were.
func TestCopyIsByteForByte(t *testing.T) {
	w := newWorld(t)
	w.must("ensure", "from")
	w.must("ensure", "to")
	for _, m := range []message{
		{ID: "nil"}, {ID: "empty", Payload: new(text)}, {ID: "\x00\xff", Key: "k\xfe", Type: "t\x1b", Payload: of("\xff\x00\x1b[2J")},
		{ID: "headers", Payload: of("x"), TTL: duration(time.Hour), Priority: 3, Headers: []header{{"a", "1", ""}, {"a", "\xff", ""}, {"n", "", "null"}, {"i", "7", "int"}}},
	} {
		line, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, errs, code := w.runWith(string(line)+"\n", "pub", "from", "--jsonl"); code != 0 {
			t.Fatal(errs)
		}
	}
	first := w.must("sub", "from", "--from", "earliest", "--json")
	if _, errs, code := w.runWith(first, "pub", "to", "--jsonl"); code != 0 {
		t.Fatal(errs)
	}
	second := w.must("sub", "to", "--from", "earliest", "--json")
	if got := strings.ReplaceAll(second, `"topic":"to"`, `"topic":"from"`); got != first || strings.Count(first, "\n") != 4 {
		t.Errorf("the copy is\n%s\nof\n%s", got, first)
	}
	if !strings.Contains(first, `"payload":null`) || !strings.Contains(first, `"payload":""`) {
		t.Errorf("nil and empty are not kept apart: %s", first)
	}
	pretty := w.must("sub", "to", "--from", "earliest")
	if strings.ContainsAny(pretty, "\x1b\x00") || !strings.Contains(pretty, `\x1b[2J`) {
		t.Errorf("a payload can write to the terminal what it likes: %q", pretty)
	}
}

func of(s string) *text { t := text(s); return &t }

func TestNoAnswerInTime(t *testing.T) {
	w := newWorld(t)
	w.env["OMNIBUS_URL"] = "nats://user:hunter2@127.0.0.1:1"
	out, errs, code := w.run("ping", "--timeout", "300ms")
	if code != exitUnavailable || strings.Contains(out+errs, "hunter2") {
		t.Errorf("it exits with %d: %s%s", code, out, errs)
	}
}
