package conformance

import (
	"context"
	"errors"
	"net/url"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// lifecycleMutants break how things begin and end.
func lifecycleMutants() []Mutant {
	return []Mutant{
		{"goes on receiving for 3 s when its context has ended", "Lifecycle/CancelEndsAtOnce", func() *mutation {
			return &mutation{wrapSource: func(_ pubsub.Driver, _ pubsub.SourceSpec, src pubsub.Source) pubsub.Source { return deaf{src} }}
		}},
		{"takes a minute to disconnect, whatever its deadline", "Lifecycle/CloseTwice", func() *mutation {
			return &mutation{closeDriver: func(ctx context.Context, d pubsub.Driver) error {
				time.Sleep(time.Minute)
				return d.Close(ctx)
			}}
		}},
		{"acks what is in a handler when it closes", "Lifecycle/CloseNamesStuckHandler", func() *mutation {
			return &mutation{beforeClose: func(ctx context.Context, s *tapSource) {
				s.mu.Lock()
				var acks []pubsub.Settlement
				for t := range s.open {
					acks = append(acks, pubsub.Settlement{Token: t, As: pubsub.SettleAck})
				}
				s.mu.Unlock()
				_ = s.Source.Settle(ctx, acks, make([]error, len(acks)))
			}}
		}},
		{"stays a member of its group after it is closed", "Lifecycle/UseAfterClose", func() *mutation {
			return &mutation{
				closeSource: func(context.Context, *tapSource) error { return nil },
				closeDriver: func(context.Context, pubsub.Driver) error { return nil },
			}
		}},
		{"leaves a goroutine behind for each source that it closes", "Lifecycle/NoLeak", func() *mutation {
			return &mutation{beforeClose: func(context.Context, *tapSource) { go time.Sleep(time.Minute) }}
		}},
		{"sends each ack together with the next one, and forgets the last when it is drained", "Lifecycle/Drain", forgetsLastAck},
		{"loses every 100th message", "Lifecycle/Drain", func() *mutation { return shows(recordLose, 100) }},
		{"counts every 100th hand-back as a failure", "Lifecycle/DrainsRecordNothing", func() *mutation { return countsReleases(100) }},
		{"counts every 5th hand-back as a failure", "Lifecycle/DrainsDuringRetries", func() *mutation { return countsReleases(5) }},
		{"loses every 100th message", "Lifecycle/DrainsDuringRetries", func() *mutation { return shows(recordLose, 100) }},
		{"listens only some time after it says so", "Lifecycle/LiveOnReturn", func() *mutation {
			begins := map[pubsub.Place]time.Time{}
			return &mutation{
				spec: func(s *pubsub.SourceSpec) {
					if begins[s.From].IsZero() {
						begins[s.From] = time.Now()
						if len(begins) > sound/5 { // the first ones work
							begins[s.From] = time.Now().Add(50 * time.Millisecond)
						}
					}
				},
				record: func(s *tapSource, _ *pubsub.Record) recordFate {
					if time.Now().Before(begins[s.spec.From]) {
						return recordLose
					}
					return recordKeep
				},
			}
		}},
		{"makes a topic that has vanished again", "Lifecycle/VanishedTopic", func() *mutation {
			return &mutation{opened: func(d pubsub.Driver, s pubsub.SourceSpec, err error) error {
				g := pubsub.Subscription{Topic: s.From.Topic, Group: s.From.Group, Order: s.Order, AckWait: s.AckWait}
				again := d.Ensure(context.Background(), pubsub.Topology{Groups: []pubsub.Subscription{g}}, pubsub.Create)
				if again != nil {
					return errors.Join(err, again)
				}
				return nil
			}}
		}},
		{"acks what should be retried, in batches", "Lifecycle/BatchForm", acksRetries},
		{"shows every 100th message twice, in batches", "Lifecycle/BatchForm", func() *mutation { return shows(recordTwice, 100) }},
		{"acks what a Receive loop leaves unsettled", "Lifecycle/PullForm", acksReleases},
		{"ignores parameters that it does not know", "Lifecycle/UnknownParameter", func() *mutation {
			return &mutation{parameters: func(q url.Values) { clear(q) }}
		}},
		{"does not say its name", "Lifecycle/Require", func() *mutation { return &mutation{name: " "} }},
		{"knows no codes", "Lifecycle/WrongUses", func() *mutation {
			return &mutation{classify: func(pubsub.Code, bool) (pubsub.Code, bool) { return pubsub.ErrBroker, true }}
		}},
	}
}

func acksRetries() *mutation {
	n := 0
	return &mutation{settle: func(_ *tapSource, x *pubsub.Settlement) bool {
		if n++; n > sound && x.As == pubsub.SettleRetryIn {
			x.As = pubsub.SettleAck
		}
		return true
	}}
}

// countsReleases records a failure for every n-th message that is handed back.
func countsReleases(n int) *mutation {
	strike := every(n)
	return &mutation{settle: func(_ *tapSource, x *pubsub.Settlement) bool {
		if x.As == pubsub.SettleRelease && strike() {
			x.Failed++
		}
		return true
	}}
}

// deaf does not hear that a context has ended.
type deaf struct{ pubsub.Source }

func (d deaf) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	n, events, err := d.Source.Recv(ctx, buf, maxBytes)
	if ctx.Err() != nil {
		time.Sleep(3 * time.Second)
	}
	return n, events, err
}
