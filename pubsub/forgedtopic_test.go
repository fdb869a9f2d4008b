package pubsub_test

import (
	"context"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Who can write to a tier cannot have a message handled as one of a topic that the group does not consume: signatures are for a topic.
func TestForgedTopicInATier(t *testing.T) {
	for name, tt := range map[string]struct{ group, says, topic string }{
		"another topic":       {"t", "u", "t"},
		"its own":             {"t", "t", "t"},
		"no topic":            {"t", "", "t"},
		"of a pattern":        {"t.*", "t.b", "t.b"},
		"outside its pattern": {"t.*", "u.b", "t.*"},
		"a place of ours":     {">", "omnibus.x", ">"},
		"another pattern":     {"t.*", "u.*", "t.*"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x, _ := inTiers(t, pubsub.Subscription{Topic: tt.group, Order: pubsub.OrderNone}, func(*pubsub.Delivery) error { return nil })
				p, err := x.d.OpenProducer(t.Context(), pubsub.ProducerSpec{MaxPending: 1}, func(rs []pubsub.Result) {
					if rs[0].Err != nil {
						t.Error(rs[0].Err)
					}
				})
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close(t.Context())
				now := time.Now().UTC().Format(time.RFC3339Nano)
				m := pubsub.Message{Headers: pubsub.Headers{{Name: "omnibus-retry", Value: now + " " + now + " " + url.QueryEscape(tt.says) + " - 0s 0"}}}
				to := pubsub.Place{Topic: tt.group, Group: "g", Kind: pubsub.PlaceRetry, Tier: time.Second}
				if _, err := p.Send(t.Context(), []pubsub.Out{{To: to, Msg: &m}}); err != nil {
					t.Fatal(err)
				}
				pass(time.Minute)
				if len(x.calls) != 1 || x.calls[0].Topic != tt.topic {
					t.Errorf("the handler got %+v, want one of %q", x.calls, tt.topic)
				}
			})
		})
	}
}

// What is sent to a pattern's group alone may say which of its topics it is of, and nothing else may.
func TestTopicOfWhatIsSentToAPattern(t *testing.T) {
	alone := pubsub.Place{Topic: "t.*", Group: "g", Kind: pubsub.PlaceRetry}
	for name, tt := range map[string]struct {
		to          pubsub.Place
		says, topic string
	}{
		"one that it covers":   {alone, "t.a", "t.a"},
		"one that it does not": {alone, "u.a", "t.*"},
		"none":                 {alone, "", "t.*"},
		"published":            {pubsub.Place{Topic: "t.a"}, "t.b", "t.a"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x, _ := inTiers(t, pubsub.Subscription{Topic: "t.*", Order: pubsub.OrderNone}, onceAfter(time.Hour))
				m := pubsub.Message{Headers: pubsub.Headers{{Name: "omnibus-topic", Value: tt.says}}}
				x.Resend(t.Context(), tt.to, m, pubsub.Dedup{}, func(_ pubsub.Receipt, err error) {
					if err != nil {
						t.Error(err)
					}
				})
				pass(2 * time.Hour)
				if len(x.calls) != 2 {
					t.Fatalf("%d calls, want 2", len(x.calls))
				}
				for _, d := range x.calls {
					if d.Topic != tt.topic || len(d.Headers) > 0 {
						t.Errorf("the handler got one of %q with headers %v, want one of %q", d.Topic, d.Headers, tt.topic)
					}
				}
			})
		})
	}
}

// What may take processes down is of the same topic in its quarantine.
func TestTopicInTheQuarantineOfAPattern(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		b, err := s.Open(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "t.a"}}}); err != nil {
			t.Fatal(err)
		}
		starts := make(chan pubsub.Delivery, 10)
		sub := pubsub.Subscription{Topic: "t.*", Group: "g", Order: pubsub.OrderNone, Retry: pubsub.Policy{MaxAttempts: 2}}
		if _, err := b.Subscribe(t.Context(), sub, func(ctx context.Context, d *pubsub.Delivery) error {
			starts <- *d
			<-ctx.Done() // until its session drops
			return ctx.Err()
		}); err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), "t.a", pubsub.Message{Headers: pubsub.Headers{{Name: "own", Value: "1"}}}); err != nil {
			t.Fatal(err)
		}
		for i := range 4 { // two in the topic, then two in the quarantine
			if d := <-starts; d.Topic != "t.a" || len(d.Headers) != 1 {
				t.Errorf("start %d is of %q with headers %v", i, d.Topic, d.Headers)
			}
			s.DropSessions()
		}
	})
}
