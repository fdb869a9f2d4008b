package dlq

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/omnibus-go/omnibus/internal/deadevent"
	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	pollEvery = time.Second      // how often a run looks whether somebody asks it for something
	sayEvery  = 10 * time.Second // how often it says that it is there
)

// A control is how a run and other processes hear of each other, beside the dead letters.
type control struct {
	tail   tail
	polled time.Time
	said   time.Time
	paused bool

	untold  []Entry // in their order; one at a time is on its way, so that what comes together goes together
	size    int64   // of the IDs of the last of them, as they are stored
	saying  Entry   // what is on its way
	talking bool
}

// begin says that the run begins, and what an earlier one of the plan could not say any more. Where nothing can be told, for good, it goes on in silence.
func (r *run) begin(ctx context.Context) error {
	p := r.p
	if !p.tells() {
		return nil
	}
	r.control = &control{polled: time.Now()}
	known := map[string]bool{}
	err := r.control.tail.read(ctx, p.q, func(e *Entry) {
		if e.Operation == OpReplayed && e.Plan == p.ID {
			for _, id := range e.IDs {
				known[id] = true
			}
		}
	})
	if err == nil {
		err = r.say(ctx, Entry{Operation: OpStart})
	}
	r.unheard(err)
	var items []int
	for i, f := range p.fates {
		if f == replayed && !known[p.items[i].ID] {
			items = append(items, i)
		}
	}
	r.tell(ctx, items)
	return r.stop
}

// tells says whether anybody is told what becomes of its messages.
func (p *Plan) tells() bool { return p.q.place.Kind == pubsub.PlaceDead && p.silent == nil }

// unheard ends the run where trying again would help, and with a canary, which would wait for outcomes that nobody tells of. Elsewhere it goes on in silence.
func (r *run) unheard(err error) {
	if err == nil {
		return
	}
	code := pubsub.CodeOf(err)
	if !ofBroker(code) && r.watch == nil {
		r.p.silent, r.control = err, nil
		return
	}
	r.end(r.p.q.fail("replay", code, fmt.Errorf("what becomes of dead letters cannot be told: %w", err), "nothing is lost: run the plan again"))
	r.control = nil // nobody would answer
}

// ofBroker says whether an error is of the broker, and may pass.
func ofBroker(c pubsub.Code) bool {
	switch c {
	case pubsub.ErrUnavailable, pubsub.ErrUnconfirmed, pubsub.ErrCanceled, pubsub.ErrClosed, pubsub.ErrTimeout, pubsub.ErrUnauthenticated:
		return true
	}
	return false
}

// line is for what is to be told also when ctx has ended, but then soon. The caller hangs up.
func line(ctx context.Context) (talk context.Context, hangUp func()) {
	talk, end := context.WithCancel(context.WithoutCancel(ctx))
	keep := context.AfterFunc(ctx, func() { time.AfterFunc(lastWords, end) })
	return talk, func() {
		keep()
		end()
	}
}

// say writes an entry of this plan, with how far it is.
func (r *run) say(ctx context.Context, e Entry) error {
	talk, hangUp := line(ctx)
	defer hangUp()
	r.control.said = time.Now()
	return r.p.q.tell(talk, r.withProgress(e), r.p.opts.Note)
}

// tell says that items were replayed, without waiting for an answer.
func (r *run) tell(ctx context.Context, items []int) {
	c := r.control
	if c == nil {
		return
	}
	for _, i := range items {
		id := r.p.items[i].ID
		last := len(c.untold) - 1
		c.size += deadevent.Size(id)
		if last < 0 || c.untold[last].Operation != OpReplayed || len(c.untold[last].IDs) == deadevent.MaxNames || c.size > r.p.q.room() {
			c.untold = append(c.untold, Entry{Operation: OpReplayed})
			c.size = deadevent.Size(id)
			last++
		}
		c.untold[last].IDs = append(c.untold[last].IDs, id)
	}
	r.talk(ctx)
}

// talk hands over the next entry, if none is on its way.
func (r *run) talk(ctx context.Context) {
	c, p := r.control, r.p
	if c == nil || c.talking || len(c.untold) == 0 {
		return
	}
	e := c.untold[0]
	c.untold, c.saying, c.talking, c.said = c.untold[1:], e, true, time.Now()
	m, token, err := r.withProgress(e).message(p.opts.Note)
	if err != nil {
		r.answers <- answer{item: told, err: err}
		return
	}
	talk, hangUp := line(ctx) // it bounds the wait for room
	defer hangUp()
	p.q.b.Resend(talk, p.q.stateAt(), m, token, func(_ pubsub.Receipt, err error) {
		r.answers <- answer{item: told, err: err}
	})
}

const told = -1 // the item of an answer to an entry

// heard takes the answer to an entry.
func (r *run) heard(ctx context.Context, err error) {
	if r.control == nil {
		return
	}
	c := r.control
	c.talking = false
	switch {
	case errors.Is(err, pubsub.ErrTooLarge) && len(c.saying.IDs) > 1:
		alone := make([]Entry, len(c.saying.IDs), len(c.saying.IDs)+len(c.untold))
		for i, id := range c.saying.IDs {
			alone[i] = c.saying
			alone[i].IDs = []string{id}
		}
		c.untold, c.size = append(alone, c.untold...), r.p.q.room() // nothing joins the last of them
	case err != nil:
		r.unheard(err)
		return
	}
	r.talk(ctx)
}

func (r *run) talking() bool { return r.control != nil && r.control.talking }

func (r *run) withProgress(e Entry) Entry {
	p := r.p
	e.Plan, e.Total, e.Done, e.Failed = p.ID, p.Count, p.replayed, len(p.failures)
	return e
}

// finish says that the run has ended. Who does not hear of it sees that it says nothing any more.
func (r *run) finish(ctx context.Context) {
	if r.control == nil {
		return
	}
	e := Entry{Operation: OpEnd}
	if r.stop != nil {
		e.Text = r.stop.Error()
	}
	_ = r.say(ctx, e)
}

// poll does what somebody asks for, and says every now and then that the run is there. While it is paused it waits, and takes the answers that come.
func (r *run) poll(ctx context.Context) {
	c := r.control
	if c == nil || !c.paused && time.Since(c.polled) < pollEvery {
		return
	}
	r.hear(ctx)
	for r.stop == nil && r.control != nil && c.paused {
		r.rest(ctx, pollEvery)
		r.hear(ctx)
	}
}

// rest waits, and takes the answers that come meanwhile.
func (r *run) rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for r.stop == nil {
		select {
		case <-timer.C:
			return
		case a := <-r.answers:
			r.take(ctx, a)
		case <-ctx.Done():
			r.cancel(ctx)
		}
	}
}

// hear reads what was asked since it was read last.
func (r *run) hear(ctx context.Context) {
	c, p := r.control, r.p
	if c == nil || r.stop != nil {
		return
	}
	err := c.tail.read(ctx, p.q, func(e *Entry) {
		r.watch.note(e)
		if e.Plan != p.ID {
			return
		}
		switch e.Operation {
		case OpPause:
			c.paused = true
		case OpResume:
			c.paused = false
		case OpCancel:
			r.end(p.q.fail("replay", pubsub.ErrCanceled, fmt.Errorf("by %s: %s", e.By, e.Why), "nothing is lost: run the plan again"))
		}
	})
	c.polled = time.Now()
	switch {
	case err == nil:
	case ctx.Err() != nil:
		r.cancel(ctx)
	default:
		r.unheard(err)
	}
	if r.stop != nil || r.control == nil || time.Since(c.said) < sayEvery {
		return
	}
	c.untold = append(c.untold, Entry{Operation: OpProgress})
	r.talk(ctx)
}
