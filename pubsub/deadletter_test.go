package pubsub_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// fullOfHeaders is a message of exactly size bytes, 16 KiB of which are headers.
func fullOfHeaders(size int64) pubsub.Message {
	m := pubsub.Message{ID: "big", Key: "k", Type: "fails", ContentType: "text/plain"}
	for i := range 128 {
		m.Headers.Add(fmt.Sprintf("header-%03d", i), strings.Repeat("v", 117))
	}
	m.Payload = bytes.Repeat([]byte{'p'}, int(size-m.Size()))
	return m
}

// panicsDeep panics under so many frames of its own.
func panicsDeep(frames int, text string) {
	if frames == 0 {
		panic(text)
	}
	panicsDeep(frames-1, text)
}

// A failer is a consumer that gives up each message at once, and the place where its dead letters are to be.
type failer struct {
	*pubsub.Consumer
	own   *pubsub.Broker
	dead  *pubsub.Broker
	place pubsub.Place
}

func failing(t *testing.T, b *pubsub.Broker, s pubsub.Subscription, fail func() error) *failer {
	t.Helper()
	s.Topic, s.Group, s.Retry.MaxAttempts = "t", "g", 1
	c, err := b.Subscribe(t.Context(), s, func(_ context.Context, d *pubsub.Delivery) error {
		if d.Type == "fails" {
			return fail()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return &failer{c, b, b, pubsub.Place{Topic: "t", Group: "g", Kind: pubsub.PlaceDead}}
}

// letters are the dead letters that there are after a minute.
func (f *failer) letters(t *testing.T) (all []pubsub.Message) {
	t.Helper()
	time.Sleep(time.Minute)
	for r, err := range f.dead.Browse(t.Context(), f.place, pubsub.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, *r.Msg)
	}
	return all
}

// wantLetter asserts that there is one dead letter, of m, with an error and a stack of these lengths, and returns it.
func (f *failer) wantLetter(t *testing.T, m pubsub.Message, errLen, stackLen int) pubsub.Message {
	t.Helper()
	all := f.letters(t)
	if len(all) != 1 {
		t.Fatalf("%d dead letters, state %+v", len(all), f.State())
	}
	got := all[0]
	own := func(h pubsub.Header) bool { return strings.HasPrefix(h.Name, "omnibus-dlq-") }
	came := slices.DeleteFunc(slices.Clone(got.Headers), own)
	if !bytes.Equal(got.Payload, m.Payload) || !slices.Equal(came, m.Headers) || got.Key != m.Key || got.ID != m.ID {
		t.Errorf("the dead letter is not the message that came: %d bytes, %d headers, key %q, id %q", len(got.Payload), len(came), got.Key, got.ID)
	}
	for _, name := range []string{"id", "source-topic", "source-group", "source-position", "reason", "attempts", "error-type", "first-failed", "last-failed", "fingerprint", "host"} {
		if got.Headers.Get("omnibus-dlq-"+name) == "" {
			t.Errorf("the dead letter does not say %s", name)
		}
	}
	if n := len(got.Headers.Get("omnibus-dlq-error")); n != errLen {
		t.Errorf("the dead letter has %d bytes of the error, want %d", n, errLen)
	}
	if n := len(got.Headers.Get("omnibus-dlq-stack")); n != stackLen {
		t.Errorf("the dead letter has %d bytes of the stack, want %d", n, stackLen)
	}
	if st := f.State(); st.Phase != pubsub.Running {
		t.Errorf("the state is %+v", st)
	}
	return got
}

const (
	wholeError = 4 << 10
	wholeStack = 8 << 10
	shortError = 256
)

// A message of the largest size is given up with all that there is to tell, and that is less than Headroom.
func TestLargestMessageIsGivenUpWhole(t *testing.T) {
	const most = 64 << 10
	long := strings.Repeat("x", 1<<20)
	huge := errors.New(long)
	for name, c := range map[string]struct {
		fail            func() error
		errLen, stackIn int
	}{
		"an error of 1 MB":                  {func() error { return huge }, wholeError, 0},
		"an error of 1 MB, no UTF-8":        {func() error { return errors.New(strings.Repeat("\x80", 1<<20)) }, wholeError, 0},
		"a panic of 1 MB under 10000 calls": {func() error { panicsDeep(10_000, long); return nil }, wholeError, wholeStack},
		"permanent":                         {func() error { return pubsub.Permanent(huge) }, wholeError, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, err := memory.NewServer(memory.Config{MaxMessage: most}).Open(t.Context(), &pubsub.Options{Service: long})
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
				f := failing(t, b, pubsub.Subscription{Rules: []pubsub.Rule{
					{Category: long, When: func(error) bool { return true }, Retry: pubsub.Policy{MaxAttempts: 1}},
				}}, c.fail)
				m := fullOfHeaders(most)
				if err := b.Publish(t.Context(), "t", m); err != nil {
					t.Fatal(err)
				}
				got := f.wantLetter(t, m, c.errLen, c.stackIn)
				if more := got.Size() - m.Size(); more > pubsub.Headroom*31/32 {
					t.Errorf("a dead letter is %d bytes larger than its message", more)
				}
			})
		})
	}
}

// The headroom is the engine's: users cannot publish into it.
func TestHeadroomIsNotForUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := memory.NewServer(memory.Config{MaxMessage: 64 << 10}).Open(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		failing(t, b, pubsub.Subscription{}, nil)
		large := pubsub.Message{ID: "1", Payload: make([]byte, 64<<10)}
		p, err := b.Publisher(pubsub.PublisherOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for name, err := range map[string]error{
			"Publish":              b.Publish(t.Context(), "t", large),
			"PublishBatch":         b.PublishBatch(t.Context(), "t", []pubsub.Message{large}),
			"DeliverTo":            b.DeliverTo(t.Context(), "t", "g", large),
			"a Publisher's":        p.Publish(t.Context(), "t", large),
			"PublishAsync's Flush": func() error { b.PublishAsync(t.Context(), "t", large, nil); return b.Flush(t.Context()) }(),
		} {
			if batch, ok := errors.AsType[*pubsub.BatchError](err); ok {
				err = batch.Errs[0]
			}
			if !errors.Is(err, pubsub.ErrTooLarge) || !strings.Contains(err.Error(), "65537 bytes, at most 65536") {
				t.Errorf("%s of one byte too much: %v", name, err)
			}
		}
	})
}

// bounded is a Publisher of somebody else, who takes messages up to a size.
type bounded struct {
	pubsub.Publisher
	limit atomic.Int64
}

func (p *bounded) PublishAsync(ctx context.Context, topic string, m pubsub.Message, done func(pubsub.Receipt, error)) {
	if m.Size() > p.limit.Load() {
		done(pubsub.Receipt{}, fmt.Errorf("somebody says: %w", pubsub.ErrTooLarge))
		return
	}
	p.Publisher.PublishAsync(ctx, topic, m, done)
}

// Where there is less room a dead letter tells less, in a fixed order; what came is never touched.
func TestDeadLetterTellsLessWhereItsPlaceIsSmaller(t *testing.T) {
	type target struct {
		dead  *pubsub.Broker
		place pubsub.Place
		to    pubsub.DeadLetter
	}
	open := func(t *testing.T, cfg memory.Config, topic pubsub.TopicSpec) *pubsub.Broker {
		t.Helper()
		b, err := memory.NewServer(cfg).Open(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{topic}}); err != nil {
			t.Fatal(err)
		}
		return b
	}
	graves := pubsub.Place{Topic: "graves"}
	targets := map[string]func(t *testing.T, own *pubsub.Broker, limit int64) target{
		"somebody's publisher": func(t *testing.T, _ *pubsub.Broker, limit int64) target {
			t.Helper()
			b := open(t, memory.Config{}, pubsub.TopicSpec{Name: "graves"})
			p := &bounded{Publisher: b}
			p.limit.Store(limit)
			return target{b, graves, pubsub.DeadLetter{To: p, Topic: "graves"}}
		},
		"a small topic": func(t *testing.T, own *pubsub.Broker, limit int64) target {
			t.Helper()
			if err := own.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "graves", MaxBytes: limit + 200}}}); err != nil {
				t.Fatal(err)
			}
			return target{own, graves, pubsub.DeadLetter{Topic: "graves"}}
		},
	}
	const size = 40 << 10
	m := fullOfHeaders(size)
	fail := func() error { panicsDeep(200, strings.Repeat("why ", 10_000)); return nil }
	const names = int64(len("omnibus-dlq-error") + len("omnibus-dlq-stack"))
	run := func(t *testing.T, how func(*testing.T, *pubsub.Broker, int64) target, limit int64, check func(t *testing.T, f *failer)) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			b := open(t, memory.Config{}, pubsub.TopicSpec{Name: "t"})
			to := how(t, b, limit)
			f := failing(t, b, pubsub.Subscription{DeadLetter: to.to}, fail)
			f.dead, f.place = to.dead, to.place
			if err := b.Publish(t.Context(), "t", m); err != nil {
				t.Fatal(err)
			}
			check(t, f)
		})
	}
	var bare, history int64 // the sizes of a dead letter with neither error nor stack nor history, and of that
	run(t, targets["somebody's publisher"], 1<<20, func(t *testing.T, f *failer) {
		t.Helper()
		whole := f.wantLetter(t, m, wholeError, wholeStack)
		history = int64(len("omnibus-dlq-history") + len(whole.Headers.Get("omnibus-dlq-history")))
		bare = whole.Size() - wholeError - wholeStack - names - history
	})
	const slack = 20 // times are written without trailing zeros
	for name, how := range targets {
		for _, c := range []struct {
			limit            int64
			errLen, stackLen int
			history          bool
		}{
			{bare + names + history + wholeError + wholeStack + slack, wholeError, wholeStack, true},
			{bare + names + history + wholeError + wholeStack - slack, wholeError, 0, true},
			{bare + names + history + wholeError + slack, wholeError, 0, true},
			{bare + history + wholeError - slack, wholeError, 0, false},
			{bare + names + wholeError + slack, wholeError, 0, false},
			{bare + wholeError - slack, shortError, 0, false},
			{bare + names + shortError + slack, shortError, 0, false},
			{bare + shortError - slack, 0, 0, false},
			{bare + slack, 0, 0, false},
		} {
			t.Run(fmt.Sprintf("%s/%d", name, c.limit-bare), func(t *testing.T) {
				run(t, how, c.limit, func(t *testing.T, f *failer) {
					t.Helper()
					got := f.wantLetter(t, m, c.errLen, c.stackLen)
					if _, has := got.Headers.Lookup("omnibus-dlq-history"); has != c.history {
						t.Errorf("the dead letter has a history: %v, want %v", has, c.history)
					}
				})
			})
		}
		t.Run(name+"/nothing fits", func(t *testing.T) {
			run(t, how, bare-slack, func(t *testing.T, f *failer) {
				t.Helper()
				all := f.letters(t)
				if len(all) != 1 {
					t.Fatalf("%d dead letters where there is room for one without payload only", len(all))
				}
				got := all[0]
				if got.ID != m.ID || got.Key != m.Key || got.Type != m.Type || len(got.Payload) > 0 || got.Headers.Get("header-000") != "" {
					t.Errorf("what points at the source is %+v", got)
				}
				for name, want := range map[string]string{"payload": "at-source", "reason": "max-attempts", "source-topic": "t", "source-group": "g"} {
					if v := got.Headers.Get("omnibus-dlq-" + name); v != want {
						t.Errorf("it says %s %q, want %q", name, v, want)
					}
				}
				if got.Headers.Get("omnibus-dlq-source-position") == "" {
					t.Error("it does not say where the message is")
				}
				if lag, err := f.own.Lag(t.Context(), "t", "g"); err != nil || lag.Messages != 1 {
					t.Errorf("the group has %d messages (%v), want the one that could not be stored", lag.Messages, err)
				}
				if st := f.State(); st.Phase != pubsub.Blocked || !errors.Is(st.Reason, pubsub.ErrTooLarge) {
					t.Errorf("the state is %+v", st)
				}
			})
		})
	}
	t.Run("room comes back", func(t *testing.T) {
		var somebody *bounded
		run(t, func(t *testing.T, own *pubsub.Broker, _ int64) target {
			t.Helper()
			to := targets["somebody's publisher"](t, own, 100)
			somebody = to.to.To.(*bounded)
			return to
		}, 0, func(t *testing.T, f *failer) {
			t.Helper()
			time.Sleep(time.Minute)
			if st := f.State(); st.Phase != pubsub.Blocked {
				t.Errorf("the state is %+v", st)
			}
			somebody.limit.Store(1 << 20)
			f.wantLetter(t, m, wholeError, wholeStack)
		})
	})
	t.Run("room comes back, and what pointed at the source stays", func(t *testing.T) {
		var somebody *bounded
		run(t, func(t *testing.T, own *pubsub.Broker, _ int64) target {
			t.Helper()
			to := targets["somebody's publisher"](t, own, bare-slack)
			somebody = to.to.To.(*bounded)
			return to
		}, 0, func(t *testing.T, f *failer) {
			t.Helper()
			if n := len(f.letters(t)); n != 1 {
				t.Errorf("%d dead letters after a minute of tries, want 1", n)
			}
			somebody.limit.Store(1 << 20)
			all := f.letters(t)
			if len(all) != 2 || len(all[1].Payload) != len(m.Payload) || all[1].Headers.Get("omnibus-dlq-payload") != "" {
				t.Errorf("%d dead letters, want what points and what it pointed at", len(all))
			}
			if st := f.State(); st.Phase != pubsub.Running {
				t.Errorf("the state is %+v", st)
			}
		})
	})
}

// What Redact has made of a dead letter is what is shortened.
func TestRedactedTextIsShortened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := memory.NewServer(memory.Config{MaxMessage: 64 << 10}).Open(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		redact := func(m *pubsub.Message) {
			m.Headers.Set("omnibus-dlq-error", strings.Repeat("*", pubsub.Headroom))
			m.Headers.Set("omnibus-dlq-stack", strings.Repeat("*", pubsub.Headroom))
		}
		f := failing(t, b, pubsub.Subscription{DeadLetter: pubsub.DeadLetter{Redact: redact}}, func() error { return errors.New("secret") })
		m := fullOfHeaders(64 << 10)
		if err := b.Publish(t.Context(), "t", m); err != nil {
			t.Fatal(err)
		}
		got := f.wantLetter(t, m, shortError, 0)
		if text := got.Headers.Get("omnibus-dlq-error"); text != strings.Repeat("*", shortError) {
			t.Errorf("the error is %q", text)
		}
	})
}
