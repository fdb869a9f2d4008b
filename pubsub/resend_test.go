package pubsub_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// What is sent again passed the outgoing middleware when it was published: a second time would compress or sign it twice.
func TestResendPassesNoMiddleware(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(&pubsub.Options{Use: []pubsub.Middleware{{Name: "mark", Outgoing: func(_ context.Context, _ string, m *pubsub.Message) error {
			m.Payload = append(m.Payload, '!')
			return nil
		}}}})
		defer b.Close()
		got := make(chan string, 10)
		_, err := b.Subscribe(t.Context(), pubsub.Subscription{Topic: "t", Group: "g"}, func(_ context.Context, d *pubsub.Delivery) error {
			got <- string(d.Payload)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), "t", pubsub.Message{Payload: []byte("a")}); err != nil {
			t.Fatal(err)
		}
		for _, to := range []pubsub.Place{{Topic: "t"}, {Topic: "t", Group: "g", Kind: pubsub.PlaceRetry}} {
			fate := make(chan error, 1)
			b.Resend(t.Context(), to, pubsub.Message{Payload: []byte("a!")}, pubsub.Dedup{}, func(_ pubsub.Receipt, err error) { fate <- err })
			if err := <-fate; err != nil {
				t.Errorf("to %v: %v", to, err)
			}
		}
		for range 3 {
			if s := <-got; s != "a!" {
				t.Errorf("got %q, want \"a!\"", s)
			}
		}
	})
}

func TestResendStoresATokenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := memory.NewServer(memory.Config{})
		if err := ensure(t, server); err != nil {
			t.Fatal(err)
		}
		to := pubsub.Place{Topic: "t", Group: "g", Kind: pubsub.PlaceRetry}
		for i, token := range []pubsub.Dedup{{1}, {1}, {2}, {}, {}} {
			b := open(t, server) // another process each time
			fate := make(chan error, 1)
			b.Resend(t.Context(), to, pubsub.Message{Key: "k"}, token, func(_ pubsub.Receipt, err error) { fate <- err })
			if err := <-fate; err != nil {
				t.Fatal(i, err)
			}
			b.Close()
		}
		n := 0
		b := open(t, server)
		defer b.Close()
		for _, err := range b.Browse(t.Context(), to, pubsub.Position{}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != 4 {
			t.Errorf("%d messages are stored, want 4: one token came twice", n)
		}
	})
}

func TestResendRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		for name, c := range map[string]struct {
			to   pubsub.Place
			want pubsub.Code
		}{
			"no topic":   {pubsub.Place{}, pubsub.ErrInvalid},
			"a pattern":  {pubsub.Place{Topic: "t.*"}, pubsub.ErrInvalid},
			"no group":   {pubsub.Place{Topic: "t", Kind: pubsub.PlaceRetry}, pubsub.ErrInvalid},
			"dead":       {pubsub.Place{Topic: "t", Group: "g", Kind: pubsub.PlaceDead}, pubsub.ErrUnroutable},
			"state":      {pubsub.Place{Topic: "t", Kind: pubsub.PlaceState}, pubsub.ErrInvalid},
			"quarantine": {pubsub.Place{Topic: "t", Group: "g", Kind: pubsub.PlaceQuarantine}, pubsub.ErrInvalid},
			"no such":    {pubsub.Place{Topic: "t", Group: "g", Kind: pubsub.PlaceRetry}, pubsub.ErrUnroutable},
		} {
			if err := resend(t, b, c.to); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
		b.Close()
		if err := resend(t, b, pubsub.Place{Topic: "t"}); !errors.Is(err, pubsub.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	})
}

func resend(t *testing.T, b *pubsub.Broker, to pubsub.Place) error {
	t.Helper()
	fate := make(chan error, 1)
	b.Resend(t.Context(), to, pubsub.Message{}, pubsub.Dedup{}, func(_ pubsub.Receipt, err error) { fate <- err })
	return <-fate
}

func open(t *testing.T, s *memory.Server) *pubsub.Broker {
	t.Helper()
	b, err := s.Open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func ensure(t *testing.T, s *memory.Server) error {
	t.Helper()
	b := open(t, s)
	defer b.Close()
	return b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{{Topic: "t", Group: "g"}}})
}
