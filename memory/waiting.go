package memory

import (
	"container/heap"
	"context"
	"iter"
	"slices"
	"time"

	"github.com/omnibus-go/omnibus/internal/drivers"
	"github.com/omnibus-go/omnibus/pubsub"
)

// retriesOf are the parts of a group in which retries wait: itself, and its quarantine. mu is held.
func (s *Server) retriesOf(topic, name string) ([]*group, error) {
	main, quarantine := pubsub.Place{Topic: topic, Group: name}, pubsub.Place{Topic: topic, Group: name, Kind: pubsub.PlaceQuarantine}
	if s.groups[main] == nil {
		return nil, says(pubsub.ErrNotFound, true, "there is no group %q of %q", name, topic)
	}
	all := []*group{s.groups[main]}
	if g := s.groups[quarantine]; g != nil {
		all = append(all, g)
	}
	return all, nil
}

// Waiting implements pubsub.Waiter: the soonest first, as it is at one moment.
func (d *driver) Waiting(ctx context.Context, topic, name string) iter.Seq2[pubsub.Waiting, error] {
	return drivers.Walk(func(yield func(pubsub.Waiting) bool) error {
		if err := d.enter(ctx); err != nil {
			return err
		}
		groups, err := d.s.retriesOf(topic, name)
		now := time.Now()
		var all []pubsub.Waiting
		for _, g := range groups {
			for ln := range g.each {
				for _, x := range ln.due {
					if !x.retry || !x.at.After(now) {
						continue
					}
					f := ln.flight(x.off)
					all = append(all, pubsub.Waiting{Due: x.at, Record: pubsub.Record{
						Msg: ln.part.at(x.off).msg, Topic: ln.part.topic, Pos: ln.part.position(x.off), Deliveries: f.deliveries, Failed: f.failed,
						Token: pubsub.Token{Lane: ln.id, Gen: uint32(g.at.Kind), A: uint64(x.off)},
					}})
				}
			}
		}
		if err == nil {
			all = append(all, d.s.inTiers(groups[0])...)
		}
		d.s.mu.Unlock()
		slices.SortStableFunc(all, func(a, b pubsub.Waiting) int { return a.Due.Compare(b.Due) })
		for _, w := range all {
			if !yield(w) {
				return nil
			}
		}
		return err
	})
}

// inTiers is what lies in the tiers of a group: the engine knows when it is due. mu is held.
func (s *Server) inTiers(g *group) (all []pubsub.Waiting) {
	for ln := range s.lanesOf(g) {
		if ln.g == g {
			continue
		}
		for off := range ln.open() {
			all = append(all, pubsub.Waiting{Record: pubsub.Record{Msg: ln.part.at(off).msg, Topic: ln.part.topic, Pos: ln.part.position(off)}})
		}
	}
	return all
}

// waits finds where w waits, in which lane and where in its heap, if it does as it was shown. mu is held.
func (s *Server) waits(topic, name string, w *pubsub.Waiting) (*lane, int, error) {
	groups, err := s.retriesOf(topic, name)
	if err != nil {
		return nil, 0, err
	}
	t := &w.Record.Token
	for _, g := range groups {
		if uint32(g.at.Kind) != t.Gen || int(t.Lane) >= len(g.lanes) || g.lanes[t.Lane] == nil {
			continue
		}
		ln := g.lanes[t.Lane]
		for i, x := range ln.due {
			if x.retry && x.off == int64(t.A) && x.at.Equal(w.Due) {
				return ln, i, nil
			}
		}
	}
	return nil, 0, says(pubsub.ErrNotFound, true, "message %q of group %q of %q waits no more for its retry at %v", w.Record.Msg.ID, name, topic, w.Due)
}

// Reschedule implements pubsub.Rescheduler.
func (d *driver) Reschedule(ctx context.Context, topic, name string, w pubsub.Waiting, in time.Duration) (pubsub.Waiting, error) {
	if err := d.enter(ctx); err != nil {
		return w, err
	}
	defer d.s.mu.Unlock()
	ln, i, err := d.s.waits(topic, name, &w)
	if err != nil {
		return w, err
	}
	w.Due = time.Now().Add(in)
	if in <= 0 {
		ln.back(heap.Remove(&ln.due, i).(dueAt).off)
		ln.wake()
		return w, nil
	}
	ln.due[i].at = w.Due
	heap.Fix(&ln.due, i)
	ln.g.alarm(w.Due)
	return w, nil
}

// Withdraw implements pubsub.Rescheduler.
func (d *driver) Withdraw(ctx context.Context, topic, name string, w pubsub.Waiting) error {
	if err := d.enter(ctx); err != nil {
		return err
	}
	defer d.s.mu.Unlock()
	ln, i, err := d.s.waits(topic, name, &w)
	if err == nil {
		off := heap.Remove(&ln.due, i).(dueAt).off
		ln.settled(off, ln.flight(off))
	}
	return err
}
