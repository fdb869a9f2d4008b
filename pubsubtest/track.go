package pubsubtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Headers of a dead letter, see pubsub.
const (
	headerReason   = "omnibus-dlq-reason"
	headerCategory = "omnibus-dlq-category"
)

// A name is one message of one group. A test may publish one ID twice; positions of different places may be alike.
type name struct {
	group string
	id    string
	pos   pubsub.Position
}

// A story is what has happened to a message in a group.
type story struct {
	runs  []run
	acked time.Time // zero = not yet
	told  bool      // OnDeadLetter was called
	why   error     // with this error
	dead  *pubsub.Message

	reason, category string
	moves            int // tries to store it as a dead letter
}

// A run is one delivery to the handler, with the middleware around it.
type run struct {
	attempt    int
	start, end time.Time
	err        error
	gone       bool // its goroutine has ended itself
}

// A tracker notes what happens on a Broker. Safe for concurrent use.
type tracker struct {
	mu      sync.Mutex
	stories map[name]*story
	open    map[pubsub.Place]int // sessions
	change  chan struct{}        // closed at the next change; nil = nobody waits
}

func newTracker() *tracker {
	return &tracker{stories: map[name]*story{}, open: map[pubsub.Place]int{}}
}

// changed returns a channel that is closed when something has happened after this call.
func (t *tracker) changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.change == nil {
		t.change = make(chan struct{})
	}
	return t.change
}

func (t *tracker) signal() { t.note(func() {}) }

// note carries out a change.
func (t *tracker) note(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
	if t.change != nil {
		close(t.change)
		t.change = nil
	}
}

// story returns the one of a message. mu is held.
func (t *tracker) story(n name) *story {
	s := t.stories[n]
	if s == nil {
		s = &story{}
		t.stories[n] = s
	}
	return s
}

func (t *tracker) opened(p pubsub.Place) { t.note(func() { t.open[p]++ }) }

func (t *tracker) left(p pubsub.Place) {
	t.note(func() {
		if t.open[p]--; t.open[p] == 0 {
			delete(t.open, p)
		}
	})
}

// subscribed returns the groups that have a subscription.
func (t *tracker) subscribed() []pubsub.Place {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.DeleteFunc(slices.Collect(maps.Keys(t.open)), func(p pubsub.Place) bool {
		return p.Kind != pubsub.PlaceMain || p.Group == pubsub.Broadcast
	})
}

func (t *tracker) acked(names []name) {
	now := time.Now()
	t.note(func() {
		for _, n := range names {
			t.story(n).acked = now
		}
	})
}

// layer sees every run of a handler from outside of all other middleware.
func (t *tracker) layer(g *guard) pubsub.Middleware {
	return pubsub.Middleware{Name: "pubsubtest", Incoming: func(next pubsub.Handler) pubsub.Handler {
		return func(ctx context.Context, d *pubsub.Delivery) (err error) {
			g.enter() // the engine may have started this goroutine from a timer, which hands no label down
			n := name{d.Group, d.ID, d.Position}
			r := run{attempt: d.Attempt, start: time.Now()}
			returned := false
			defer func() {
				p := any(nil)
				if !returned {
					p = recover()
				}
				switch {
				case returned:
					r.err = err
				case p != nil:
					r.err = fmt.Errorf("panic: %v", p)
				default:
					r.gone = true
				}
				r.end = time.Now()
				t.note(func() { s := t.story(n); s.runs = append(s.runs, r) })
				if p != nil {
					panic(p) // to the engine, which keeps the stack: it is not unwound yet
				}
			}()
			err = next(ctx, d)
			returned = true
			return err
		}
	}}
}

// subscription returns sub with its hooks extended: they tell what becomes a dead letter.
func (t *tracker) subscription(sub pubsub.Subscription) pubsub.Subscription {
	told := sub.DeadLetter.OnDeadLetter
	sub.DeadLetter.OnDeadLetter = func(d *pubsub.Delivery, err error) {
		defer t.note(func() {
			s := t.story(name{d.Group, d.Raw().ID, d.Position})
			s.told, s.why = true, err
		})
		if told != nil {
			told(d, err)
		}
	}
	if dropped(sub) {
		return sub
	}
	redact := sub.DeadLetter.Redact
	sub.DeadLetter.Redact = func(m *pubsub.Message) {
		var pos pubsub.Position
		err := pos.UnmarshalText([]byte(m.Headers.Get("omnibus-dlq-source-position")))
		n := name{sub.Group, m.ID, pos}
		reason, category := m.Headers.Get(headerReason), m.Headers.Get(headerCategory)
		if redact != nil {
			redact(m)
		}
		if err != nil {
			return // not what the engine writes
		}
		dead := m.Clone()
		t.note(func() {
			s := t.story(n)
			s.dead, s.reason, s.category = &dead, reason, category
			s.moves++
		})
	}
	return sub
}

// dropped says whether what is given up is not kept.
func dropped(sub pubsub.Subscription) bool {
	return sub.DeadLetter.Drop || sub.Group == pubsub.Broadcast && sub.DeadLetter.Topic == ""
}
