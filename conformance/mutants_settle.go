package conformance

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// settleMutants break what happens between a handler's outcome and the broker.
func settleMutants() []Mutant {
	return []Mutant{
		{"acks what should be retried", "Settlement/ErrorIsRedelivered", acksRetries},
		{"gives back every 100th message that is acked", "Settlement/SettleOnce", func() *mutation {
			strike := every(100)
			return &mutation{settle: func(_ *tapSource, x *pubsub.Settlement) bool {
				if strike() && x.As == pubsub.SettleAck {
					x.As = pubsub.SettleRelease
				}
				return true
			}}
		}},
		{"acks every 10th message when it is delivered", "Settlement/PeerTakesOver", func() *mutation { return acksEarly(10) }},
		{"halves the delay of every 5th retry", "Settlement/RetryNotEarly", func() *mutation {
			return delays(func(d time.Duration) time.Duration { return d / 2 })
		}},
		{"doubles the delay of every 5th retry and adds 2 s", "Settlement/RetryNotLate", func() *mutation {
			return delays(func(d time.Duration) time.Duration { return 2*d + 2*time.Second })
		}},
		{"hides that its session has ended", "Settlement/StaleSettle", func() *mutation {
			return &mutation{wrapSource: func(d pubsub.Driver, s pubsub.SourceSpec, src pubsub.Source) pubsub.Source {
				return &undying{Source: src, d: d, spec: s}
			}}
		}},
		{"does not say until when a lease lasts", "Settlement/LeaseOver", hidesLeases},
		{"sends each ack together with the next one, and forgets the last when it closes", "Settlement/AckedStaysAcked", forgetsLastAck},
		{"acks only what has nothing unsettled before it", "Settlement/AckedStaysAcked", acksPrefix},
		{"does not renew leases", "Settlement/SlowHandlerOnce", func() *mutation {
			return &mutation{renew: func(*pubsub.Renewal) bool { return false }}
		}},
		{"shows one message at a time", "Settlement/SlowHandlerOnce", func() *mutation { return oneAtATime(0) }},
		{"forgets how often a message has failed", "Settlement/AttemptsCountUp", forgetsFailures},
		{"does not store how often a message has failed", "Settlement/AttemptsSurviveCrash", forgetsFailures},
		{"gives leases that have no end", "Settlement/PastLeaseMax", hidesLeases},
		{"claims leases without an end", "Settlement/TooLongDelay", func() *mutation {
			return &mutation{capabilities: func(c *pubsub.Capabilities) { c.LeaseMax = pubsub.Forever }}
		}},
	}
}

// hidesLeases does not say when they end.
func hidesLeases() *mutation {
	n := 0
	return &mutation{record: func(_ *tapSource, r *pubsub.Record) recordFate {
		if n++; n > sound {
			r.LeaseUntil = time.Time{}
		}
		return recordKeep
	}}
}

// acksPrefix keeps each ack until all before it in its lane is settled, as one who stores a single offset would.
func acksPrefix() *mutation {
	n := 0
	kept := map[*tapSource][]pubsub.Settlement{}
	return &mutation{settle: func(s *tapSource, x *pubsub.Settlement) bool {
		if n++; n <= sound || x.As != pubsub.SettleAck {
			return true
		}
		s.mu.Lock()
		open := slices.Collect(maps.Keys(s.open))
		s.mu.Unlock()
		var due, later []pubsub.Settlement
		for _, k := range append(kept[s], *x) {
			if slices.ContainsFunc(open, func(t pubsub.Token) bool { return t.Lane == k.Token.Lane && t.A < k.Token.A }) {
				later = append(later, k)
			} else {
				due = append(due, k)
			}
		}
		kept[s] = later
		s.ack(due)
		return false
	}}
}

// delays changes the delay of every 5th retry.
func delays(f func(d time.Duration) time.Duration) *mutation {
	strike := every(5)
	return &mutation{settle: func(_ *tapSource, x *pubsub.Settlement) bool {
		if x.As == pubsub.SettleRetryIn && strike() {
			x.Delay = f(x.Delay)
		}
		return true
	}}
}

// forgetsLastAck sends each ack together with the next one.
func forgetsLastAck() *mutation {
	n := 0
	late := map[*tapSource]pubsub.Settlement{}
	return &mutation{settle: func(s *tapSource, x *pubsub.Settlement) bool {
		if n++; n <= sound || x.As != pubsub.SettleAck {
			return true
		}
		before, ok := late[s]
		late[s] = *x
		*x = before
		return ok
	}}
}

func forgetsFailures() *mutation {
	return &mutation{
		settle: func(_ *tapSource, x *pubsub.Settlement) bool { x.Failed = 0; return true },
		renew:  func(r *pubsub.Renewal) bool { r.Failed = 0; return true },
	}
}

// An undying source opens its next session by itself, and says that all is well to settlements for the last one.
type undying struct {
	pubsub.Source // the first session
	d             pubsub.Driver
	spec          pubsub.SourceSpec

	mu   sync.Mutex
	next pubsub.Source
}

func (u *undying) now() pubsub.Source {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.next != nil {
		return u.next
	}
	return u.Source
}

func (u *undying) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	n, events, err := u.now().Recv(ctx, buf, maxBytes)
	if err == nil || ctx.Err() != nil {
		return n, events, err
	}
	_ = u.now().Close(ctx)
	next, err := u.d.OpenSource(ctx, u.spec)
	if err != nil {
		return 0, nil, err
	}
	u.mu.Lock()
	u.next = next
	u.mu.Unlock()
	return 0, nil, nil
}

func (u *undying) Settle(ctx context.Context, xs []pubsub.Settlement, errs []error) error {
	_ = u.now().Settle(ctx, xs, errs)
	clear(errs)
	return nil
}

func (u *undying) Renew(ctx context.Context, rs []pubsub.Renewal, errs []error) error {
	_ = u.now().Renew(ctx, rs, errs)
	clear(errs)
	return nil
}

func (u *undying) Sync(ctx context.Context) error    { return u.now().Sync(ctx) }
func (u *undying) Quiesce(ctx context.Context) error { return u.now().Quiesce(ctx) }
func (u *undying) Close(ctx context.Context) error   { return u.now().Close(ctx) }
func (u *undying) LaneDone(ctx context.Context, losing pubsub.LaneEvent) error {
	return u.now().LaneDone(ctx, losing)
}
