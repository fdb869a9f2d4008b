package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

// The server forgets acknowledgements that it has taken, if the channel is closed when it is behind with them. None that Sync was called after may be among
// these, nor one of a lane that is given back; and Sync takes no message for itself.
func TestSettledIsSettled(t *testing.T) {
	const n = 4000
	for _, variant := range []string{"default", "classic"} {
		t.Run(variant, func(t *testing.T) {
			s := startServer(t, variant)
			d, err := s.driver(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = d.Close(context.WithoutCancel(t.Context())) }()
			b := s.open(t, nil, nil)
			for _, order := range []pubsub.Order{pubsub.OrderNone, pubsub.OrderByKey} {
				topic := fmt.Sprintf("settled.%d", order)
				spec := pubsub.SourceSpec{From: pubsub.Place{Topic: topic, Group: "g"}, Order: order, AckWait: time.Minute, MaxInFlight: n, MaxInFlightBytes: 1 << 30, Member: "m"}
				src := source(t, d, spec)
				var all sync.WaitGroup
				fill := func() {
					for range n {
						all.Add(1)
						b.PublishAsync(t.Context(), topic, pubsub.Message{Payload: make([]byte, 1000)}, func(_ pubsub.Receipt, err error) {
							if err != nil {
								t.Error(err)
							}
							all.Done()
						})
					}
				}
				fill()
				got := recv(t, src, n)
				fill()
				// Each second one, at once: no two can be acknowledged by one command. Half of them beside a consumer that goes on.
				settle := func(some []pubsub.Record) {
					t.Helper()
					list := make([]pubsub.Settlement, 0, len(some)/2)
					for i := 1; i < len(some); i += 2 {
						list = append(list, pubsub.Settlement{Token: some[i].Token, As: pubsub.SettleAck})
					}
					errs := make([]error, len(list))
					if err := errors.Join(src.Settle(t.Context(), list, errs), src.Sync(t.Context()), errors.Join(errs...)); err != nil {
						t.Fatal(err)
					}
				}
				settle(got[:n/2])
				if err := src.Quiesce(t.Context()); err != nil {
					t.Fatal(err)
				}
				fill() // the server is busy
				settle(got[n/2:])
				if err := src.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				all.Wait()
				const want = 3*n - n/2
				var left int
				poll.Until(t, "what was not settled to be back", func() bool {
					s.must(t, func(ch *amqp.Channel) error {
						q, err := ch.QueueDeclarePassive(topic+"__g", true, false, false, false, nil)
						left = q.Messages
						return err
					})
					return left >= want
				})
				if left != want {
					t.Errorf("order %v: %d of %d messages came back after they were settled", order, left-want, n/2)
				}
			}
		})
	}
}
