package pubsub_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A subscription whose dead letters could not be kept does not begin, and says which target is wrong.
func TestTargetIsLookedAtWhenASubscriptionStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		open := func(s *memory.Server, opts *pubsub.Options) *pubsub.Broker {
			b, err := s.Open(t.Context(), opts)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = b.Close() })
			return b
		}
		creates, verifies := open(s, nil), open(s, &pubsub.Options{Manage: pubsub.Verify})
		small, elsewhere := open(memory.NewServer(memory.Config{MaxMessage: 64 << 10}), nil), open(memory.NewServer(memory.Config{}), nil)
		closed := open(memory.NewServer(memory.Config{}), nil)
		if err := closed.Close(); err != nil {
			t.Fatal(err)
		}
		verifiedElsewhere := open(memory.NewServer(memory.Config{}), &pubsub.Options{Manage: pubsub.Verify})
		wrapped, err := elsewhere.Publisher(pubsub.PublisherOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := creates.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "there"}}, Groups: []pubsub.Subscription{{Topic: "t", Group: "g"}}}); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			b    *pubsub.Broker
			to   pubsub.DeadLetter
			want pubsub.Code // 0 = it begins
			says string
		}{
			"there":              {verifies, pubsub.DeadLetter{Topic: "there"}, 0, ""},
			"made":               {creates, pubsub.DeadLetter{Topic: "made"}, 0, ""},
			"missing":            {verifies, pubsub.DeadLetter{Topic: "missing"}, pubsub.ErrNotFound, `DeadLetter.Topic "missing"`},
			"missing elsewhere":  {creates, pubsub.DeadLetter{Topic: "missing", To: verifiedElsewhere}, pubsub.ErrNotFound, `DeadLetter.Topic "missing"`},
			"made elsewhere":     {verifies, pubsub.DeadLetter{Topic: "made", To: elsewhere}, 0, ""},
			"made by its user":   {verifies, pubsub.DeadLetter{Topic: "made-2", To: wrapped}, 0, ""},
			"too small":          {creates, pubsub.DeadLetter{Topic: "made", To: small}, pubsub.ErrTooLarge, "65536 bytes"},
			"closed":             {creates, pubsub.DeadLetter{Topic: "made", To: closed}, pubsub.ErrClosed, `DeadLetter.Topic "made"`},
			"nobody looks at it": {creates, pubsub.DeadLetter{Topic: "made", To: unknown{small}}, 0, ""},
		} {
			f, err := c.b.Subscribe(t.Context(), pubsub.Subscription{Topic: "t", Group: "g", DeadLetter: c.to}, func(context.Context, *pubsub.Delivery) error { return nil })
			if pubsub.CodeOf(err) != c.want || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v, want %v and %q", name, err, c.want, c.says)
			}
			if err == nil {
				if err := f.Drain(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
		for b, topics := range map[*pubsub.Broker][]string{verifies: {"made"}, verifiedElsewhere: nil} {
			for _, topic := range topics {
				if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: topic}}}); err != nil {
					t.Errorf("%s was not made: %v", topic, err)
				}
			}
		}
	})
}

// A Publisher of somebody else's cannot be asked.
type unknown struct{ pubsub.Publisher }

// A target that is only away keeps nobody from consuming: what cannot be stored is kept until it can.
func TestTargetThatIsAwayIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		there := memory.NewServer(memory.Config{})
		away, err := there.Open(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer away.Close()
		if err := away.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "dead"}}}); err != nil {
			t.Fatal(err)
		}
		there.Crash()
		var log bytes.Buffer
		b := memory.New(&pubsub.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		defer b.Close()
		f := failing(t, b, pubsub.Subscription{DeadLetter: pubsub.DeadLetter{Topic: "dead", To: away}}, func() error { return errors.New("no") })
		f.dead, f.place = away, pubsub.Place{Topic: "dead"}
		if err := b.Publish(t.Context(), "t", pubsub.Message{Type: "fails"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if st := f.State(); st.Phase != pubsub.Blocked {
			t.Errorf("the state is %v, want blocked", st.Phase)
		}
		there.Restart()
		if n := len(f.letters(t)); n != 1 {
			t.Errorf("%d dead letters, want 1", n)
		}
		if !strings.Contains(log.String(), "dead") || !strings.Contains(log.String(), "level=WARN") {
			t.Errorf("the log does not warn: %s", &log)
		}
	})
}

// A target that does not answer is away, too: it leaves time to subscribe, whatever the caller's deadline. Only who cancels is told so.
func TestTargetThatDoesNotAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		deadline time.Duration
		cancel   time.Duration
		want     pubsub.Code // 0 = it begins
	}{
		"no deadline":   {0, 0, 0},
		"a deadline":    {3 * time.Second, 0, 0},
		"it is stopped": {3 * time.Second, time.Second, pubsub.ErrCanceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				there := memory.NewServer(memory.Config{})
				away, err := there.Open(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer away.Close()
				if err := away.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "dead"}}}); err != nil {
					t.Fatal(err)
				}
				resume := there.Stall()
				b := memory.New(nil)
				defer b.Close()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				asked := ctx
				if c.deadline > 0 {
					var stop context.CancelFunc
					asked, stop = context.WithTimeout(ctx, c.deadline)
					defer stop()
				}
				if c.cancel > 0 {
					time.AfterFunc(c.cancel, cancel)
				}
				begin := time.Now()
				sub := pubsub.Subscription{Topic: "t", Group: "g", Retry: pubsub.Policy{MaxAttempts: 1}, DeadLetter: pubsub.DeadLetter{Topic: "dead", To: away}}
				f, err := b.Subscribe(asked, sub, func(context.Context, *pubsub.Delivery) error { return errors.New("no") })
				took := time.Since(begin)
				resume()
				if pubsub.CodeOf(err) != c.want || took > 5*time.Second {
					t.Fatalf("after %v: %v, want %v", took, err, c.want)
				}
				if err == nil {
					if err := f.Drain(t.Context()); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}
