package pubsub_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// deadHeaders lets a subscription give up the messages, and returns what each dead letter says, by the message's ID.
func deadHeaders(t *testing.T, s pubsub.Subscription, h pubsub.Handler, msgs ...pubsub.Message) map[string]pubsub.Headers {
	t.Helper()
	b := memory.New(nil)
	defer b.Close()
	s.Topic, s.Group = "t", "g"
	if _, err := b.Subscribe(t.Context(), s, h); err != nil {
		t.Fatal(err)
	}
	if err := b.PublishBatch(t.Context(), "t", msgs); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Hour)
	all := map[string]pubsub.Headers{}
	for r, err := range b.Browse(t.Context(), pubsub.Place{Topic: "t", Group: "g", Kind: pubsub.PlaceDead}, pubsub.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		all[r.Msg.ID] = r.Msg.Headers
	}
	if len(all) != len(msgs) {
		t.Fatalf("%d dead letters of %d messages", len(all), len(msgs))
	}
	return all
}

type pastFailure struct {
	Attempt     int
	At          time.Time
	Type, Error string
}

func historyOf(t *testing.T, h pubsub.Headers) (list []pastFailure) {
	t.Helper()
	if err := json.Unmarshal([]byte(h.Get("omnibus-dlq-history")), &list); err != nil {
		t.Fatalf("the history %q: %v", h.Get("omnibus-dlq-history"), err)
	}
	return list
}

// The history has every failure, whether the message was held between them or waited at the broker.
func TestDeadLetterTellsItsHistory(t *testing.T) {
	for name, order := range map[string]pubsub.Order{"held": pubsub.OrderByKey, "moved": pubsub.OrderNone} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now().Add(3 * time.Second)
				h := deadHeaders(t, pubsub.Subscription{Order: order, Retry: pubsub.Policy{MaxAttempts: 4, Delays: []time.Duration{time.Minute}}},
					func(_ context.Context, d *pubsub.Delivery) error {
						time.Sleep(3 * time.Second)
						if d.Attempt == 2 {
							panic(idError{"deep"})
						}
						return fmt.Errorf("attempt %d: %w", d.Attempt, idError{strings.Repeat("é", 1000)})
					}, pubsub.Message{ID: "1", Key: "k"})["1"]
				list := historyOf(t, h)
				if len(list) != 4 {
					t.Fatalf("%d failures, want 4: %+v", len(list), list)
				}
				for i, f := range list {
					due, text := begin.Add(time.Duration(i)*(time.Minute+3*time.Second)), fmt.Sprintf("attempt %d: éé", i+1)
					if i == 1 {
						text = "panic: deep"
					}
					late := f.At.Sub(due)
					if f.Attempt != i+1 || late < 0 || late > 4*time.Second || f.Type != "pubsub_test.idError" || !strings.HasPrefix(f.Error, text) || len(f.Error) > 96 {
						t.Errorf("failure %d is %+v, want at %v of %q", i+1, f, due, text)
					}
				}
				for header, f := range map[string]pastFailure{"first-failed": list[0], "last-failed": list[3]} {
					if at, err := time.Parse(time.RFC3339Nano, h.Get("omnibus-dlq-"+header)); err != nil || at.Sub(f.At).Abs() > time.Second {
						t.Errorf("%s is %q, want about %v", header, h.Get("omnibus-dlq-"+header), f.At)
					}
				}
			})
		})
	}
}

// What is told of each of many failures is bounded; the latest are.
func TestHistoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deadHeaders(t, pubsub.Subscription{Retry: pubsub.Policy{MaxAttempts: 100, Delays: []time.Duration{time.Second}}},
			func(context.Context, *pubsub.Delivery) error { return errors.New(strings.Repeat("<", 1000)) }, pubsub.Message{ID: "1"})["1"]
		list := historyOf(t, h)
		if n := len(h.Get("omnibus-dlq-history")); n > 1024 {
			t.Errorf("%d bytes of history", n)
		}
		if len(list) == 0 || list[len(list)-1].Attempt != 100 {
			t.Errorf("the history is %+v", list)
		}
	})
}

// MaxElapsed counts from the first delivery, also where the message waits at the broker.
func TestMaxElapsedOfMovedRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deadHeaders(t, pubsub.Subscription{Order: pubsub.OrderNone,
			Retry: pubsub.Policy{MaxAttempts: 50, MaxElapsed: 5*time.Minute + 30*time.Second, Delays: []time.Duration{time.Minute}}},
			func(context.Context, *pubsub.Delivery) error { return errors.New("no") }, pubsub.Message{ID: "1"})["1"]
		if reason, n := h.Get("omnibus-dlq-reason"), h.Get("omnibus-dlq-attempts"); reason != "max-elapsed" || n != "6" {
			t.Errorf("given up because of %s after %s attempts, want max-elapsed after 6", reason, n)
		}
	})
}

func fails() error      { return pubsub.WithStack(errors.New("a")) }
func failsToo() error   { return pubsub.WithStack(errors.New("b")) }
func failsAgain() error { return fmt.Errorf("outer: %w", pubsub.WithStack(fails())) }

type mute struct{}

func (mute) Error() string { panic("no text") }

// What can be known of a failure is in its dead letter.
func TestDeadLetterTellsWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, err := os.Hostname()
		if err != nil {
			t.Fatal(err)
		}
		const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
		traced := func(id, value string) pubsub.Message {
			return pubsub.Message{ID: id, Headers: pubsub.Headers{{Name: "traceparent", Value: value}}}
		}
		all := deadHeaders(t, pubsub.Subscription{Retry: pubsub.Policy{MaxAttempts: 1}, Rules: []pubsub.Rule{
			{Category: "c", When: func(err error) bool { return err.Error() == "c" }, Retry: pubsub.Policy{MaxAttempts: 1}},
		}}, func(_ context.Context, d *pubsub.Delivery) error {
			switch d.ID {
			case "stack":
				return fails()
			case "same place":
				return pubsub.Permanent(fails())
			case "other place":
				return failsToo()
			case "outer":
				return failsAgain()
			case "mute":
				return mute{}
			case "category":
				return errors.New("c")
			}
			return errors.New("d")
		}, traced("trace", "00-"+trace+"-00f067aa0ba902b7-01"), traced("later version", "01-"+trace+"-00f067aa0ba902b7-01-more"),
			traced("no trace", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"), traced("short", "00-"+trace), traced("upper", "00-"+strings.ToUpper(trace)+"-00f067aa0ba902b7-01"),
			pubsub.Message{ID: "stack"}, pubsub.Message{ID: "same place"}, pubsub.Message{ID: "other place"}, pubsub.Message{ID: "outer"}, pubsub.Message{ID: "mute"},
			pubsub.Message{ID: "category"})
		say := func(id, header string) string { return all[id].Get("omnibus-dlq-" + header) }
		for id, want := range map[string]string{"trace": trace, "later version": trace, "no trace": "", "short": "", "upper": "", "mute": ""} {
			if got := say(id, "trace"); got != want {
				t.Errorf("%s: the trace is %q, want %q", id, got, want)
			}
		}
		for id := range all {
			if say(id, "host") != host || !strings.HasPrefix(say(id, "fingerprint"), "v1-") || len(historyOf(t, all[id])) != 1 {
				t.Errorf("%s says %v", id, all[id])
			}
		}
		printOf := func(id string) string { return say(id, "fingerprint") }
		if printOf("stack") != printOf("same place") || printOf("stack") == printOf("other place") || printOf("stack") == printOf("trace") || printOf("category") == printOf("trace") {
			t.Errorf("the fingerprints are %s, %s, %s, %s, %s", printOf("stack"), printOf("same place"), printOf("other place"), printOf("trace"), printOf("category"))
		}
		for id, function := range map[string]string{"stack": "fails", "other place": "failsToo", "outer": "fails"} {
			if got := say(id, "stack"); !strings.HasPrefix(got, "github.com/omnibus-go/omnibus/pubsub_test."+function+"(...)\n\t") || !strings.Contains(got, "deadrecord_test.go:") {
				t.Errorf("%s: the stack is %q", id, got)
			}
		}
		if say("trace", "stack") != "" || say("stack", "error-type") != "*errors.errorString" {
			t.Errorf("without WithStack the stack is %q; with it the type is %q", say("trace", "stack"), say("stack", "error-type"))
		}
		if got := say("mute", "error"); !strings.Contains(got, "pubsub_test.mute") {
			t.Errorf("an error without text says %q", got)
		}
	})
	if pubsub.WithStack(nil) != nil {
		t.Error("WithStack(nil) is an error")
	}
}
