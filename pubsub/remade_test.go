package pubsub_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// An eager driver is memory that looks for each token, as a broker does that does not know which messages may have been sent before.
type eager struct {
	pubsub.Driver
	pubsub.Browser
}

func (d eager) OpenProducer(ctx context.Context, s pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	p, err := d.Driver.OpenProducer(ctx, s, report)
	return eagerProducer{p}, err
}

type eagerProducer struct{ pubsub.Producer }

func (p eagerProducer) Send(ctx context.Context, run []pubsub.Out) (int, error) {
	run = slices.Clone(run)
	for i := range run {
		run[i].Again = true
	}
	return p.Producer.Send(ctx, run)
}

// A topic that is made anew has other messages at the positions of those that were given up: theirs are other dead letters, in a place that
// has outlived the topic.
func TestDeadLettersOfATopicThatWasMadeAnew(t *testing.T) {
	for name, tt := range map[string]struct {
		to    pubsub.DeadLetter
		place pubsub.Place
	}{
		"the pattern's own place": {pubsub.DeadLetter{}, pubsub.Place{Topic: "t.*", Group: "g", Kind: pubsub.PlaceDead}},
		"another topic":           {pubsub.DeadLetter{Topic: "graves"}, pubsub.Place{Topic: "graves"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := memory.NewServer(memory.Config{})
				d := s.Driver()
				b, err := pubsub.New(t.Context(), eager{d, d.(pubsub.Browser)}, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
				if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "graves"}}}); err != nil {
					t.Fatal(err)
				}
				var at []pubsub.Position
				sub := pubsub.Subscription{Topic: "t.*", Group: "g", DeadLetter: tt.to}
				if _, err := b.Subscribe(t.Context(), sub, func(_ context.Context, d *pubsub.Delivery) error {
					at = append(at, d.Position)
					return pubsub.Permanent(errors.New("no"))
				}); err != nil {
					t.Fatal(err)
				}
				happened := time.Now()
				msgs := []pubsub.Message{{ID: "1", Time: happened}, {ID: "2", Time: happened}, {ID: "2", Time: happened.Add(time.Nanosecond)}}
				for _, m := range msgs {
					if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "t.a"}}}); err != nil {
						t.Fatal(err)
					}
					if err := b.Publish(t.Context(), "t.a", m); err != nil {
						t.Fatal(err)
					}
					pass(time.Second)
					s.DeleteTopic("t.a")
					pass(time.Second)
				}
				if len(at) != len(msgs) || at[1] != at[0] || at[2] != at[0] {
					t.Fatalf("the messages were at %v, and are to be at one position", at)
				}
				var stored []string
				for r, err := range b.Browse(t.Context(), tt.place, pubsub.Position{}) {
					if err != nil {
						t.Fatal(err)
					}
					stored = append(stored, r.Msg.ID+" "+r.Msg.Time.Sub(happened).String())
				}
				if want := []string{"1 0s", "2 0s", "2 1ns"}; !slices.Equal(stored, want) {
					t.Errorf("the dead letters are %q, want %q", stored, want)
				}
			})
		})
	}
}
