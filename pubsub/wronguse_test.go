package pubsub_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Wrong use is answered with a typed error that says what is wrong.
func TestWrongUse(t *testing.T) {
	mux := pubsub.Mux{memory.Opener()}
	noop := func(context.Context, *pubsub.Delivery) error { return nil }
	open := func(t *testing.T, opts *pubsub.Options) *pubsub.Broker {
		t.Helper()
		b, err := mux.Open(t.Context(), "mem://?max_message=1024", opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return b
	}
	subscribe := func(s pubsub.Subscription) func(*testing.T) error {
		return func(t *testing.T) error {
			t.Helper()
			_, err := open(t, nil).Subscribe(t.Context(), s, noop)
			return err
		}
	}
	publish := func(topic string, m pubsub.Message) func(*testing.T) error {
		return func(t *testing.T) error {
			t.Helper()
			b := open(t, nil)
			if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "t"}}}); err != nil {
				t.Fatal(err)
			}
			return b.Publish(t.Context(), topic, m)
		}
	}
	openURL := func(url string) func(*testing.T) error {
		return func(t *testing.T) error {
			t.Helper()
			_, err := mux.Open(t.Context(), url, nil)
			return err
		}
	}
	group := pubsub.Subscription{Topic: "t", Group: "g"}
	with := func(f func(*pubsub.Subscription)) func(*testing.T) error {
		s := group
		f(&s)
		return subscribe(s)
	}
	for _, c := range []struct {
		name string
		do   func(*testing.T) error
		code pubsub.Code
		says string // in the error, hint included
	}{
		{"unknown scheme", openURL("kafka2://x"), pubsub.ErrInvalid, "known schemes: mem://"},
		{"no scheme", openURL("s3cr3t"), pubsub.ErrInvalid, "no scheme"},
		{"unknown parameter", openURL("mem://x?max_byte=1"), pubsub.ErrInvalid, `unknown parameter "max_byte" (mem://name?max_bytes=N`},
		{"bad parameter", openURL("mem://x?max_bytes=-1"), pubsub.ErrInvalid, "positive"},
		{"user in the URL", openURL("mem://u:s3cr3t@x"), pubsub.ErrInvalid, "no user"},
		{"required capability", func(t *testing.T) error {
			t.Helper()
			_, err := mux.Open(t.Context(), "mem://", &pubsub.Options{Require: pubsub.Capabilities{Durability: pubsub.Disk}})
			return err
		}, pubsub.ErrUnsupported, "disk durability"},
		{"nil handler", func(t *testing.T) error {
			t.Helper()
			_, err := open(t, nil).Subscribe(t.Context(), group, nil)
			return err
		}, pubsub.ErrInvalid, "handler is nil"},
		{"no topic", subscribe(pubsub.Subscription{Group: "g"}), pubsub.ErrInvalid, "no topic"},
		{"no group", subscribe(pubsub.Subscription{Topic: "t"}), pubsub.ErrInvalid, "no group"},
		{"group with a dot", subscribe(pubsub.Subscription{Topic: "t", Group: "a.b"}), pubsub.ErrInvalid, "dot"},
		{"group with an underscore", subscribe(pubsub.Subscription{Topic: "t", Group: "_b"}), pubsub.ErrInvalid, "begins with an underscore"},
		{"reserved topic", subscribe(pubsub.Subscription{Topic: "omnibus.x", Group: "g"}), pubsub.ErrInvalid, "reserved"},
		{"double underscore", publish("a__b", pubsub.Message{}), pubsub.ErrInvalid, "double underscore"},
		{"empty topic", publish("", pubsub.Message{}), pubsub.ErrInvalid, "no topic"},
		{"pattern in a publish", publish("a.*", pubsub.Message{}), pubsub.ErrInvalid, "'*'"},
		{"unknown topic", publish("nowhere", pubsub.Message{}), pubsub.ErrUnroutable, "Ensure"},
		{"reserved header", publish("t", pubsub.Message{Headers: pubsub.Headers{{Name: "omnibus-x"}}}), pubsub.ErrInvalid, "reserved"},
		{"oversized", publish("t", pubsub.Message{Payload: make([]byte, 2000)}), pubsub.ErrTooLarge, "at most 1024"},
		{"negative delay", publish("t", pubsub.Message{Delay: -1}), pubsub.ErrInvalid, "Message.Delay"},
		{"priority", publish("t", pubsub.Message{Priority: 10}), pubsub.ErrInvalid, "Message.Priority"},
		{"negative concurrency", with(func(s *pubsub.Subscription) { s.Concurrency = -1 }), pubsub.ErrInvalid, "Concurrency is -1"},
		{"too little in flight", with(func(s *pubsub.Subscription) { s.Concurrency, s.MaxInFlight = 8, 4 }), pubsub.ErrInvalid, "less than Concurrency"},
		{"short lease", with(func(s *pubsub.Subscription) { s.AckWait = time.Millisecond }), pubsub.ErrInvalid, "AckWait"},
		{"bad policy", with(func(s *pubsub.Subscription) { s.Retry.MaxAttempts = -2 }), pubsub.ErrInvalid, "Retry.MaxAttempts"},
		{"rule without When", with(func(s *pubsub.Subscription) { s.Rules = []pubsub.Rule{{}} }), pubsub.ErrInvalid, "Rules[0].When"},
		{"drop and topic", with(func(s *pubsub.Subscription) { s.DeadLetter = pubsub.DeadLetter{Drop: true, Topic: "x"} }), pubsub.ErrInvalid, "Drop excludes"},
		{"harmful order", with(func(s *pubsub.Subscription) {
			s.Use = []pubsub.Middleware{{Name: "decrypt", After: []string{"verify"}, Why: "forged bytes would be decrypted"}, {Name: "verify"}}
		}), pubsub.ErrInvalid, `"decrypt" must be listed after "verify": forged bytes`},
		{"nil from a layer", with(func(s *pubsub.Subscription) {
			s.Use = []pubsub.Middleware{{Name: "bad", Incoming: func(pubsub.Handler) pubsub.Handler { return nil }}}
		}), pubsub.ErrInvalid, `"bad" returned a nil handler`},
		{"dedup without ID", func(t *testing.T) error {
			t.Helper()
			p, err := open(t, nil).Publisher(pubsub.PublisherOptions{DedupByID: true})
			if err != nil {
				t.Fatal(err)
			}
			return p.Publish(t.Context(), "t", pubsub.Message{})
		}, pubsub.ErrInvalid, "Message.ID"},
		{"closed broker", func(t *testing.T) error {
			t.Helper()
			b := open(t, nil)
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := b.Subscribe(t.Context(), group, noop); !errors.Is(err, pubsub.ErrClosed) {
				t.Errorf("Subscribe: %v", err)
			}
			return b.Publish(t.Context(), "t", pubsub.Message{})
		}, pubsub.ErrClosed, "closed"},
		{"bad options, every call", func(t *testing.T) error {
			t.Helper()
			return memory.New(&pubsub.Options{DrainTimeout: -1}).Publish(t.Context(), "t", pubsub.Message{})
		}, pubsub.ErrInvalid, "DrainTimeout"},
		{"dead context", func(t *testing.T) error {
			t.Helper()
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return open(t, nil).Publish(ctx, "t", pubsub.Message{})
		}, pubsub.ErrCanceled, "context canceled"},
		{"group with other settings", func(t *testing.T) error {
			t.Helper()
			b := open(t, nil)
			if _, err := b.Subscribe(t.Context(), group, noop); err != nil {
				t.Fatal(err)
			}
			s := group
			s.AckWait = time.Minute
			_, err := b.Subscribe(t.Context(), s, noop)
			return err
		}, pubsub.ErrConflict, "ack wait"},
		{"verify", func(t *testing.T) error {
			t.Helper()
			_, err := open(t, &pubsub.Options{Manage: pubsub.Verify}).Subscribe(t.Context(), group, noop)
			return err
		}, pubsub.ErrNotFound, `no topic "t"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.do(t)
			if !errors.Is(err, c.code) || pubsub.CodeOf(err) != c.code {
				t.Fatalf("got %v, want %q", err, c.code.Error())
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q does not say %q", err, c.says)
			}
			if strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("%q shows a secret", err)
			}
		})
	}
}
