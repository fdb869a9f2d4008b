package pubsub_test

import (
	"net/url"
	"testing"
	"testing/synctest"
	"time"

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
