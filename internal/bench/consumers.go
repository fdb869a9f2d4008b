package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// withConsumers runs consumers of all groups, does work meanwhile, waits until everything is handled and nothing is pending, calls
// ended, stops the consumers and checks what was handled. prepare may set up the tallies.
func (t *trial) withConsumers(ctx context.Context, sh Shape, groups []string, prepare func([]*tally), work func() error, ended func()) (err error) {
	switch {
	case t.c.Consume == nil:
		return NotOffered("no consumer")
	case sh.Retries && !t.c.Retries:
		return NotOffered("no retries that others do not wait for")
	}
	left, done := atomic.Int64{}, make(chan struct{})
	left.Store(int64(len(groups)))
	tallies := make([]*tally, len(groups))
	for i := range tallies {
		tallies[i] = newTally(t.n, sh)
		tallies[i].done = func() {
			if left.Add(-1) == 0 {
				close(done)
			}
		}
	}
	if prepare != nil {
		prepare(tallies)
	}
	var stops []func(context.Context) error
	stop := func() error {
		var errs []error
		for _, s := range stops {
			errs = append(errs, s(ctx))
		}
		stops = nil
		return errors.Join(errs...)
	}
	defer func() { err = errors.Join(err, stop()) }()
	for i, g := range groups {
		s, err := t.c.Consume(ctx, Consume{Topic: t.topic, Group: g, Workers: sh.Workers, Keyed: sh.Keys > 0, Defaults: sh.Defaults,
			Shape: sh, Loose: sh.Loose, Fails: sh.fails()}, tallies[i].handle)
		if err != nil {
			return err
		}
		stops = append(stops, s)
	}
	if work != nil {
		if err := work(); err != nil {
			return err
		}
	}
	if err := t.await(ctx, done, tallies); err != nil {
		return err
	}
	if err := verdict(tallies); err != nil {
		return err
	}
	if t.c.Pending != nil && sh.Poisoned == 0 { // else something always is
		err = t.settled(ctx, groups)
	} else {
		err = stop()
	}
	if err != nil {
		return err
	}
	ended()
	if err := stop(); err != nil {
		return err
	}
	return verdict(tallies)
}

func verdict(tallies []*tally) error {
	for _, tl := range tallies {
		if err := tl.verdict(); err != nil {
			return err
		}
	}
	return nil
}

// await waits for done as long as something is handled now and then.
func (t *trial) await(ctx context.Context, done <-chan struct{}, tallies []*tally) error {
	tick := time.NewTicker(t.patience)
	defer tick.Stop()
	for before := int64(-1); ; {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		var now int64
		for _, tl := range tallies {
			now += tl.handled.Load() + tl.strange.Load()
		}
		if now == before {
			if err := verdict(tallies); err != nil {
				return fmt.Errorf("%w, and no more came within %v", err, t.patience)
			}
		}
		before = now
	}
}

// settled waits until nothing is pending for any of the groups.
func (t *trial) settled(ctx context.Context, groups []string) error {
	end := time.Now().Add(t.patience)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for _, g := range groups {
		for {
			got, err := t.c.Pending(ctx, t.topic, g)
			if err != nil {
				return err
			}
			if got == 0 {
				break
			}
			if time.Now().After(end) {
				return fmt.Errorf("everything was handled, but %v later %d messages are still not settled", t.patience, got)
			}
			timer.Reset(100 * time.Microsecond)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	return nil
}
