package nats_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	client "github.com/nats-io/nats.go"

	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
)

// What the server does not let a user write is denied soon, and not waited for until the deadline: a message, and a dead letter, which is kept.
func TestDeniedPublish(t *testing.T) {
	const visible = 5 * time.Second
	s := ownServer(t, "userpass") // one that was given by URL knows no such user
	all := s.open(t)
	sub := pubsub.Subscription{Topic: "orders", Group: "g", Retry: pubsub.Policy{MaxAttempts: 1}}
	topics := []pubsub.TopicSpec{{Name: "orders"}, {Name: containers.NATSForbidden}}
	if err := all.Ensure(t.Context(), pubsub.Topology{Topics: topics, Groups: []pubsub.Subscription{sub}}); err != nil {
		t.Fatal(err)
	}
	params := s.Params
	params.User = containers.NATSLimited
	b, err := nats.Open(t.Context(), s.addressOf(params, nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	fates := make(chan error, 3)
	for range 2 {
		b.PublishAsync(t.Context(), containers.NATSForbidden, pubsub.Message{}, func(_ pubsub.Receipt, err error) { fates <- err })
	}
	b.PublishAsync(t.Context(), "orders", pubsub.Message{ID: "fails"}, func(_ pubsub.Receipt, err error) {
		if err != nil {
			t.Errorf("what is allowed: %v", err)
		}
		fates <- pubsub.ErrDenied
	})
	for range 3 {
		if err := <-fates; !errors.Is(err, pubsub.ErrDenied) {
			t.Errorf("a publish that is not allowed returned %v", err)
		}
	}
	if d := time.Since(begin); d > visible {
		t.Errorf("it took %v", d)
	}
	fail := func(context.Context, *pubsub.Delivery) error { return errors.New("it fails") }
	c, err := b.Subscribe(t.Context(), sub, fail)
	if err != nil {
		t.Fatal(err)
	}
	var st pubsub.State
	if !poll.Holds(visible, func() bool {
		st = c.State()
		return st.Phase == pubsub.Blocked && errors.Is(st.Reason, pubsub.ErrDenied)
	}) {
		t.Errorf("with dead letters that are denied the state is %v because of %v", st.Phase, st.Reason)
	}
	if lag, err := b.Lag(t.Context(), "orders", "g"); err != nil || lag.Messages != 1 || len(adaptertest.DeadLetters(t, all, "orders", "g")) != 0 {
		t.Errorf("%d messages are not acked (%v), want the one that could not be stored", lag.Messages, err)
	}
	if err := b.Close(); err != nil {
		t.Log(err)
	}
	if _, err := all.Subscribe(t.Context(), sub, fail); err != nil {
		t.Fatal(err)
	}
	poll.Within(t, time.Minute, "who may write dead letters has stored it", func() bool { return len(adaptertest.DeadLetters(t, all, "orders", "g")) > 0 })
}

// A denial is charged to one message, to the last that it can mean: those before may be stored, and be answered late.
func TestEachDenialIsOfOneMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var refused []uint64
		send, complain := nats.Unanswered(func(rs []pubsub.Result) {
			for _, r := range rs {
				if r.Fate != pubsub.FateRefused || !errors.Is(r.Err, client.ErrPermissionViolation) {
					t.Errorf("%+v", r)
				}
				refused = append(refused, r.Seq)
			}
		})
		want := func(seqs ...uint64) {
			t.Helper()
			time.Sleep(3 * time.Second)
			synctest.Wait()
			if slices.Sort(refused); !slices.Equal(refused, seqs) {
				t.Errorf("refused are %d, want %d", refused, seqs)
			}
			refused = nil
		}
		for _, subject := range []string{"a", "a", "b", "a", "a"} {
			send(subject)
		}
		complain(denied("a"))
		complain(denied("a"))
		send("a") // what is sent later is not meant
		complain(denied("c"))
		want(4, 5)
		complain(denied("b"))
		want(3)
		for range 3 {
			complain(denied("a"))
		}
		want(1, 2, 6)
	})
}

// Denials cost the same, however many messages have no answer.
func TestManyDenials(t *testing.T) {
	const n, bound = 5000, 16 << 20 // a list of them all for each would be 100 MB
	synctest.Test(t, func(t *testing.T) {
		refused := 0
		send, complain := nats.Unanswered(func(rs []pubsub.Result) { refused += len(rs) })
		for range n {
			send("a")
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := denied("a")
		for range n {
			complain(err)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		runtime.ReadMemStats(&after)
		if spent := after.TotalAlloc - before.TotalAlloc; refused != n || spent > bound {
			t.Errorf("%d of %d messages were refused for %d bytes", refused, n, spent)
		}
	})
}

// denied is what the client says of a subject that may not be published to.
func denied(subject string) error {
	return fmt.Errorf("%w: Permissions Violation for Publish to %q", client.ErrPermissionViolation, subject)
}
