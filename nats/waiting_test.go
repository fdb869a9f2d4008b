package nats_test

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"testing"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
)

// The copy that takes the place of what waits once had the server's own headers of the original, among them where that lay: it could not be changed again, and a
// list never came to its end. What others store with such headers is what it is where it lies.
func TestWhatWaitsIsChangedAgainAndAgain(t *testing.T) {
	s := startServer(t, "default")
	b := s.open(t)
	sub := pubsub.Subscription{Topic: "again", Group: "g", Order: pubsub.OrderNone}
	c, err := b.Subscribe(t.Context(), sub, func(context.Context, *pubsub.Delivery) error {
		return pubsub.RetryAfter(time.Hour, errors.New("fails"))
	})
	if err != nil {
		t.Fatal(err)
	}
	want := pubsub.Message{ID: "m", Key: "k", Payload: []byte("p"), Headers: pubsub.Headers{{Name: "Nats-Sequence", Value: "7"}}}
	if err := b.Publish(t.Context(), sub.Topic, want); err != nil {
		t.Fatal(err)
	}
	list := func() (all []pubsub.Waiting) {
		t.Helper()
		for w, err := range b.Waiting(t.Context(), sub.Topic, sub.Group) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, w)
		}
		return all
	}
	poll.Until(t, "the retry to wait", func() bool { return len(list()) == 1 })
	if err := c.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	d, err := s.driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	w := list()[0]
	for in := 2 * time.Hour; in < 6*time.Hour; in += time.Hour {
		if w, err = d.(pubsub.Rescheduler).Reschedule(t.Context(), sub.Topic, sub.Group, w, in); err != nil {
			t.Fatal(err)
		}
		all := list()
		if len(all) != 1 || !all[0].Due.Equal(w.Due) || time.Until(w.Due) < in-time.Minute || all[0].Attempt() != 2 {
			t.Fatalf("put off for %v there wait %+v", in, all)
		}
		if m := all[0].Record.Msg; m.ID != want.ID || m.Key != want.Key || string(m.Payload) != "p" || !slices.Equal(m.Headers, want.Headers) {
			t.Fatalf("it is %+v, want %+v", m, want)
		}
	}
	forged := client.NewMsg("omnibus.retry.omnibus.again__g.0")
	forged.Header.Set("Nats-Sequence", "1")
	forged.Header.Set("Nats-Subject", "omnibus.retry.omnibus.other__g.0")
	forged.Header.Set("Omnibus-Due", time.Now().Add(time.Hour).UTC().Format(time.RFC3339Nano))
	if _, err := s.jetStream(t.Context(), t).PublishMsg(t.Context(), forged); err != nil {
		t.Fatal(err)
	}
	all := list()
	if len(all) != 2 || all[0].Record.Msg.ID != want.ID {
		t.Fatalf("there wait %+v", all)
	}
	if _, err := d.(pubsub.Rescheduler).Reschedule(t.Context(), sub.Topic, sub.Group, all[1], 2*time.Hour); err != nil {
		t.Fatal(err)
	}
	if all = list(); len(all) != 2 || !all[0].Due.Equal(w.Due) || time.Until(all[1].Due) < 90*time.Minute {
		t.Errorf("with one put off that says it lies elsewhere there wait %+v", all)
	}
}

// A stream that somebody has made has a wildcard: its topics are the subjects with messages, and not the partitions of another.
func TestTopicsOfAWildcard(t *testing.T) {
	s := startServer(t, "default")
	js := s.jetStream(t.Context(), t)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "tree", Subjects: []string{"tree.>", "trunk"}}); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"tree.a", "tree.b.c", "tree.a"} {
		if _, err := js.Publish(t.Context(), subject, nil); err != nil {
			t.Fatal(err)
		}
	}
	b, err := nats.Open(t.Context(), s.address(url.Values{"stream": {"tree"}}), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got, err := b.Topics(t.Context())
	if want := []string{"tree.a", "tree.b.c", "trunk"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("listed are %q, %v; want %q", got, err, want)
	}
}
