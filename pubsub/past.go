package pubsub

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	maxFailures    = 10   // of one message that are remembered
	maxFailureText = 96   // bytes of each text of a failure
	maxPasts       = 1000 // messages whose failures are remembered while they are elsewhere
)

// A failure is an attempt that failed, as the history of a dead letter tells of it.
type failure struct {
	Attempt int       `json:"attempt"`
	At      time.Time `json:"at"`
	Type    string    `json:"type"`
	Error   string    `json:"error"`
}

// newFailure keeps nothing of err, which may hold whatever the handler had.
func newFailure(attempt int, err error) *failure {
	return &failure{
		Attempt: attempt, At: time.Now().UTC(), Type: cutText(errorType(err), maxFailureText),
		Error: strings.Clone(cutText(errorText(err), maxFailureText)),
	}
}

// errorText is what err says. One that panics has nothing to say.
func errorText(err error) (text string) {
	defer func() {
		if recover() != nil {
			text = fmt.Sprintf("an error of the type %T, whose text panics", err)
		}
	}()
	return err.Error()
}

// A past is what a consumer knows of a message that has failed; nil = nothing.
type past struct {
	began  time.Time // when its handler was first called
	first  time.Time // when it first failed
	latest []*failure
}

// failedAgain adds a failure to the item's past. mu is held.
func (it *item) failedAgain(f *failure) {
	if it.past == nil {
		it.past = &past{began: it.first, first: f.At}
	}
	p := it.past
	if len(p.latest) == maxFailures {
		p.latest = append(p.latest[:0], p.latest[1:]...)
	}
	p.latest = append(p.latest, f)
}

// history tells of the latest failures in at most limit bytes, the oldest first.
func (p *past) history(limit int) string {
	if p == nil {
		return ""
	}
	for from := range p.latest {
		if text, err := json.Marshal(p.latest[from:]); err == nil && len(text) <= limit {
			return string(text)
		}
	}
	return ""
}

// pasts remember the failures of messages that are not held any more and may come again: those that wait for a retry at the broker, or whose session
// ended. What another member, or a process before this one, has seen of a message it cannot tell.
type pasts struct {
	of   map[pastKey]*past
	keys []pastKey // of all in of; once it is full, a ring
	next int       // in that, the oldest
}

type pastKey struct {
	kind  PlaceKind
	topic string
	pos   Position
}

func (it *item) pastKey() pastKey {
	k := pastKey{it.feed.place.Kind, it.rec.Topic, it.rec.Pos}
	if it.feed.place.Tier > 0 {
		k.kind = PlaceMain // a copy in a tier says what it was
	}
	return k
}

// keep remembers the past of an item that is let go. mu is held.
func (p *pasts) keep(it *item) {
	if it.past == nil || it.rec.Pos == (Position{}) {
		return
	}
	k := it.pastKey()
	switch _, known := p.of[k]; {
	case known:
	case len(p.keys) < maxPasts:
		if p.of == nil {
			p.of = map[pastKey]*past{}
		}
		p.keys = append(p.keys, k)
	default:
		delete(p.of, p.keys[p.next])
		p.keys[p.next] = k
		p.next = (p.next + 1) % maxPasts
	}
	p.of[k] = it.past
}

// recall gives an item that comes again its past: a copy, for an item that has lost its lease may be telling of it still. One that the broker
// calls new has none, whatever was at its position before. mu is held.
func (p *pasts) recall(it *item) {
	if len(p.of) == 0 || it.failed == 0 {
		return
	}
	if known := p.of[it.pastKey()]; known != nil {
		it.past = &past{known.began, known.first, slices.Clone(known.latest)}
		it.first = known.began
	}
}
