package bench

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"time"
)

// A trial is one repetition of a shape by one client.
type trial struct {
	c        *Client
	sh       Shape
	all      *corpus
	n        int // messages to publish
	topic    string
	warm     bool          // it is none of the warm-up
	patience time.Duration // without any progress, until what has not come is lost
}

// run does the work and checks the count.
func (t *trial) run(ctx context.Context) (sample, error) {
	runtime.GC() // the last one's garbage is not this one's
	switch t.sh.Op {
	case Publish:
		return t.publish(ctx)
	case Consumed:
		return t.consume(ctx)
	case Latency:
		return t.latency(ctx)
	default:
		return t.roundTrip(ctx)
	}
}

func (t *trial) groups() []string {
	names := []string{"g"}
	for i := 1; i < t.sh.Groups; i++ {
		names = append(names, "g"+strconv.Itoa(i))
	}
	return names
}

func (t *trial) publish(ctx context.Context) (sample, error) {
	if err := t.offers(t.sh.Form); err != nil {
		return sample{}, err
	}
	if err := t.c.Prepare(ctx, t.topic, t.groups()); err != nil {
		return sample{}, err
	}
	m := meter{wire: t.c.Wire}
	m.begin()
	err := t.send(ctx, t.sh.Form)
	s := m.end(t.n)
	if err != nil {
		return s, err
	}
	return s, t.stored(ctx)
}

// stored checks that the broker holds what it has confirmed. It does not wait: a confirmation that comes before the message is kept
// is none. Where the broker does not say, everything is consumed, in the warm-up only: some peers take minutes for it.
func (t *trial) stored(ctx context.Context) error {
	if t.c.Pending != nil {
		got, err := t.c.Pending(ctx, t.topic, "g")
		if err == nil && got < int64(t.n) {
			err = fmt.Errorf("lost: the broker holds %d of %d confirmed messages", got, t.n)
		}
		return err
	}
	if t.warm {
		return nil
	}
	_, err := t.drain(ctx, Shape{Workers: 1, Size: t.sh.Size})
	return err
}

func (t *trial) consume(ctx context.Context) (sample, error) {
	if t.c.Consume == nil {
		return sample{}, NotOffered("no consumer")
	}
	if err := t.c.Prepare(ctx, t.topic, t.groups()); err != nil {
		return sample{}, err
	}
	fill := t.c.Fill
	for _, form := range []Form{Batched, Async, Blocking} {
		if fill == "" && t.offers(form) == nil {
			fill = form
		}
	}
	by := *t
	by.sh.Callers = 64
	if err := by.send(ctx, fill); err != nil {
		return sample{}, err
	}
	runtime.GC()
	return t.drain(ctx, t.sh)
}

// drain consumes the n messages of the topic. The clock runs from the first one handled until the broker says that nothing is pending.
func (t *trial) drain(ctx context.Context, sh Shape) (sample, error) {
	m := meter{wire: t.c.Wire}
	begin := m.begin
	var s sample
	err := t.withConsumers(ctx, sh, []string{"g"}, func(ts []*tally) { ts[0].first = begin }, nil, func() { s = m.end(t.n) })
	return s, err
}

func (t *trial) roundTrip(ctx context.Context) (sample, error) {
	if err := t.offers(t.sh.Form); err != nil {
		return sample{}, err
	}
	groups := t.groups()
	if err := t.c.Prepare(ctx, t.topic, groups); err != nil {
		return sample{}, err
	}
	m := meter{wire: t.c.Wire}
	var s sample
	err := t.withConsumers(ctx, t.sh, groups, nil, func() error {
		m.begin()
		return t.send(ctx, t.sh.Form)
	}, func() { s = m.end(t.n * len(groups)) })
	return s, err
}

// latency publishes at a fixed rate. Its callers take turns, so that a slow answer delays nobody else's message, and the messages of a key are
// one caller's, which keeps their order; a message that is due while its caller still waits counts from when it was due.
func (t *trial) latency(ctx context.Context) (sample, error) {
	if t.c.Publish == nil {
		return sample{}, NotOffered("no blocking publish")
	}
	if err := t.c.Prepare(ctx, t.topic, t.groups()); err != nil {
		return sample{}, err
	}
	m := meter{wire: t.c.Wire}
	var s sample
	sent, delay := make([]time.Duration, t.n), make([]time.Duration, t.n)
	err := t.withConsumers(ctx, t.sh, t.groups(), func(ts []*tally) {
		ts[0].each = func(i int) { delay[i] = time.Since(m.start) - sent[i] }
	}, func() error {
		m.begin()
		callers := max(t.sh.Callers, 1)
		return together(callers, func(caller int) error {
			timer := time.NewTimer(0)
			defer timer.Stop()
			for i := range t.n {
				turn := i
				if t.sh.Keys > 0 {
					turn %= t.sh.Keys
				}
				if turn%callers != caller {
					continue
				}
				due := time.Duration(i) * time.Second / time.Duration(t.sh.Rate)
				sent[i] = due
				if wait := due - time.Since(m.start); wait > 0 {
					timer.Reset(wait)
					select {
					case <-timer.C:
					case <-ctx.Done():
						return ctx.Err()
					}
					sent[i] = time.Since(m.start) // that a timer fires late is not the client's doing
				}
				if err := t.c.Publish(ctx, t.topic, t.all.message(i)); err != nil {
					return err
				}
			}
			return nil
		})
	}, func() { s = m.end(t.n) })
	if t.sh.Poisoned > 0 {
		spoiled := t.sh.spoiled(t.n)
		kept := delay[:0]
		for i, d := range delay {
			if !spoiled[i%t.sh.Keys] {
				kept = append(kept, d)
			}
		}
		delay = kept
	}
	slices.Sort(delay)
	s.delays = delay
	return s, err
}
