package conformance

import (
	"context"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// flowMutants break how much is fetched, and when.
func flowMutants() []Mutant {
	return []Mutant{
		{"buffers ten times MaxInFlight in its client", "Flow/InFlightMessages", hoards},
		{"fetches as many bytes as there are", "Flow/InFlightBytes", func() *mutation {
			return &mutation{wrapSource: func(_ pubsub.Driver, _ pubsub.SourceSpec, src pubsub.Source) pubsub.Source { return boundless{src} }}
		}},
		{"fetches ahead of what its handlers take", "Flow/SlowHandlerStopsFetching", hoards},
		{"shows one message at a time", "Flow/HandlersRunAtOnce", func() *mutation { return oneAtATime(0) }},
		{"loses what comes first after a pause", "Flow/PauseAndResume", losesAfterPause},
		{"counts what waits for a retry as in flight", "Flow/DelayedDoNotBlock", func() *mutation {
			var due []time.Time
			return &mutation{
				settle: func(_ *tapSource, x *pubsub.Settlement) bool {
					if x.As == pubsub.SettleRetryIn {
						due = append(due, time.Now().Add(x.Delay))
					}
					return true
				},
				recvBlocks: func(s *tapSource) bool {
					s.m.mu.Lock()
					defer s.m.mu.Unlock()
					n := 0
					for _, t := range due {
						if time.Now().Before(t) {
							n++
						}
					}
					return n >= s.spec.MaxInFlight
				},
			}
		}},
		{"loses every 100th message of those that wait", "Flow/DelayedDoNotBlock", func() *mutation { return shows(recordLose, 100) }},
		{"forgets every 10th dead letter", "Flow/ParkDeadLetter", func() *mutation { return losesDead(10) }},
		{"loses what comes first when nothing was fetched for long", "Flow/ParkBlock", losesAfterPause},
	}
}

// losesDead confirms every n-th dead letter without storing it.
func losesDead(n int) *mutation {
	dead := 0
	return &mutation{out: func(o *pubsub.Out) outFate {
		if o.To.Kind != pubsub.PlaceDead {
			return outStore
		}
		if dead++; dead%n == 0 {
			return outLose
		}
		return outStore
	}}
}

// losesAfterPause loses a few messages when it was not asked for any for a while.
func losesAfterPause() *mutation {
	var last time.Time
	lose := 0
	return &mutation{
		recvBlocks: func(s *tapSource) bool {
			s.m.mu.Lock()
			defer s.m.mu.Unlock()
			if !last.IsZero() && time.Since(last) > 300*time.Millisecond {
				lose, last = 3, time.Time{}
			}
			return false
		},
		record: func(*tapSource, *pubsub.Record) recordFate {
			if last = time.Now(); lose > 0 {
				lose--
				return recordLose
			}
			return recordKeep
		},
	}
}

// hoards fetches more than it is asked for.
func hoards() *mutation {
	return &mutation{
		spec: func(s *pubsub.SourceSpec) { s.MaxInFlight *= 10 },
		wrapSource: func(_ pubsub.Driver, _ pubsub.SourceSpec, src pubsub.Source) pubsub.Source {
			return &hoarder{Source: src}
		},
	}
}

// A hoarder is a source with a buffer of its own.
type hoarder struct {
	pubsub.Source
	stash []pubsub.Record
}

func (h *hoarder) Recv(ctx context.Context, buf []pubsub.Record, _ int64) (int, []pubsub.LaneEvent, error) {
	var events []pubsub.LaneEvent
	if len(buf) == 0 { // only lanes that come and go are asked for
		return h.Source.Recv(ctx, buf, 1<<40)
	}
	if len(h.stash) == 0 {
		more := make([]pubsub.Record, 10*len(buf))
		n, ev, err := h.Source.Recv(ctx, more, 1<<40)
		if err != nil {
			return 0, ev, err
		}
		h.stash, events = more[:n], ev
	}
	n := copy(buf, h.stash)
	h.stash = h.stash[n:]
	return n, events, nil
}

// boundless does not count bytes.
type boundless struct{ pubsub.Source }

func (b boundless) Recv(ctx context.Context, buf []pubsub.Record, _ int64) (int, []pubsub.LaneEvent, error) {
	return b.Source.Recv(ctx, buf, 1<<40)
}
