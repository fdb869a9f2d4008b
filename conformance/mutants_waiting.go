package conformance

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// waitingMutants break what is shown of retries that wait, and what is done about them.
func waitingMutants() []Mutant {
	return []Mutant{
		{"leaves out every 90th retry that waits", "Waiting/Listed", func() *mutation {
			return showsWaiting(func(n int, w pubsub.Waiting, yield func(pubsub.Waiting) bool) bool { return n%90 == 0 || yield(w) })
		}},
		{"shows every 90th retry that waits twice", "Waiting/Listed", func() *mutation {
			return showsWaiting(func(n int, w pubsub.Waiting, yield func(pubsub.Waiting) bool) bool {
				return yield(w) && (n%90 > 0 || yield(w))
			})
		}},
		{"says of every 90th retry that it is due a minute earlier", "Waiting/Listed", func() *mutation {
			return showsWaiting(func(n int, w pubsub.Waiting, yield func(pubsub.Waiting) bool) bool {
				if n%90 == 0 {
					w.Due = w.Due.Add(-time.Minute)
				}
				return yield(w)
			})
		}},
		{"shows the attempt that has failed as the next one", "Waiting/Listed", func() *mutation {
			return showsWaiting(func(_ int, w pubsub.Waiting, yield func(pubsub.Waiting) bool) bool {
				w.Record.Failed = max(w.Record.Failed-1, 0)
				return yield(w)
			})
		}},
		{"says of every 3rd retry that it is due, and lets it wait", "Waiting/RetryNow", func() *mutation {
			n := 0
			return &mutation{reschedule: func(next rescheduler, w pubsub.Waiting, in time.Duration) (pubsub.Waiting, error) {
				if n++; n%3 == 0 {
					return w, nil
				}
				return next(w, in)
			}}
		}},
		{"makes a retry due a minute too late", "Waiting/RetryNow", func() *mutation {
			return &mutation{reschedule: func(next rescheduler, w pubsub.Waiting, in time.Duration) (pubsub.Waiting, error) {
				return next(w, in+time.Minute)
			}}
		}},
		{"lets a retry wait that is given up", "Waiting/DeadLetterNow", func() *mutation {
			return &mutation{withdraw: func(func() error) error { return nil }}
		}},
		{"forgets every 3rd dead letter", "Waiting/DeadLetterNow", func() *mutation { return losesDead(3) }},
		{"puts what is given up off for a day, and does not know it any more", "Waiting/DeadLetterNow", func() *mutation {
			return &mutation{reschedule: func(next rescheduler, w pubsub.Waiting, in time.Duration) (pubsub.Waiting, error) {
				if in > 0 {
					in = 24 * time.Hour
				}
				held, err := next(w, in)
				held.Due = w.Due
				return held, err
			}}
		}},
		{"does not put off what is given up", "Waiting/RacesWithItsTime", func() *mutation {
			return &mutation{reschedule: func(next rescheduler, w pubsub.Waiting, in time.Duration) (pubsub.Waiting, error) {
				if in > 0 {
					return w, nil
				}
				return next(w, in)
			}}
		}},
		{"loses every 90th message that comes", "Waiting/RacesWithItsTime", func() *mutation {
			strike := every(90)
			return &mutation{record: func(*tapSource, *pubsub.Record) recordFate {
				if strike() {
					return recordLose
				}
				return recordKeep
			}}
		}},
	}
}

// topicMutants break the list of topics.
func topicMutants() []Mutant {
	return []Mutant{
		{"leaves out the topic whose name comes first", "Observation/Topics", func() *mutation {
			return &mutation{topics: func(all []string) []string {
				first := slices.Min(all)
				return slices.DeleteFunc(all, func(name string) bool { return name == first })
			}}
		}},
		{"lists a topic that was never made", "Observation/Topics", func() *mutation {
			return &mutation{topics: func(all []string) []string { return append(all, slices.Min(all)+".never") }}
		}},
	}
}

// showsWaiting changes how the n-th retry is shown.
func showsWaiting(show func(n int, w pubsub.Waiting, yield func(pubsub.Waiting) bool) bool) *mutation {
	return &mutation{waiting: func(all iter.Seq2[pubsub.Waiting, error]) iter.Seq2[pubsub.Waiting, error] {
		return func(yield func(pubsub.Waiting, error) bool) {
			n := 0
			for w, err := range all {
				n++
				if err != nil {
					yield(w, err)
					return
				}
				if !show(n, w, func(w pubsub.Waiting) bool { return yield(w, nil) }) {
					return
				}
			}
		}
	}}
}

// A rescheduler is Reschedule of the driver below, for a place that is known.
type rescheduler = func(w pubsub.Waiting, in time.Duration) (pubsub.Waiting, error)

func (t *tap) Waiting(ctx context.Context, topic, group string) iter.Seq2[pubsub.Waiting, error] {
	all := t.below.Waiting(ctx, topic, group)
	if t.m.waiting != nil {
		return t.m.waiting(all)
	}
	return all
}

func (t *tap) Reschedule(ctx context.Context, topic, group string, w pubsub.Waiting, in time.Duration) (pubsub.Waiting, error) {
	next := func(w pubsub.Waiting, in time.Duration) (pubsub.Waiting, error) {
		return t.below.Reschedule(ctx, topic, group, w, in)
	}
	if t.m.reschedule == nil {
		return next(w, in)
	}
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	return t.m.reschedule(next, w, in)
}

func (t *tap) Withdraw(ctx context.Context, topic, group string, w pubsub.Waiting) error {
	next := func() error { return t.below.Withdraw(ctx, topic, group, w) }
	if t.m.withdraw == nil {
		return next()
	}
	return t.m.withdraw(next)
}
