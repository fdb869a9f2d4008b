package main

import (
	"fmt"
	"slices"
	"sync"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A ledger keeps what became of every order, so that the example can check itself. Safe for concurrent use.
type ledger struct {
	mu        sync.Mutex
	seq       map[string]int // order of publishing, by order id
	customers map[string]bool
	confirmed map[string]bool
	refused   int // certainly not at the broker
	unknown   int // perhaps at the broker
	firstErr  error
	complete  bool // nothing more will be published
	groups    []*account
	done      chan struct{} // closed when every confirmed order is accounted for
	isDone    bool
}

// An account is one group's side of the ledger.
type account struct {
	name       string
	handled    map[string]bool
	dead       map[string]bool
	last       map[string]int // by customer: the latest order handled
	retries    int
	duplicates int
	disorder   int
}

func newLedger(names ...string) *ledger {
	l := &ledger{
		seq:       map[string]int{},
		customers: map[string]bool{},
		confirmed: map[string]bool{},
		done:      make(chan struct{}),
	}
	for _, n := range names {
		l.groups = append(l.groups, &account{name: n, handled: map[string]bool{}, dead: map[string]bool{}, last: map[string]int{}})
	}
	return l
}

// sending is told of an order before it is published.
func (l *ledger) sending(o Order) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq[o.ID] = len(l.seq) + 1
	l.customers[o.Customer] = true
}

// sent is told what the broker said.
func (l *ledger) sent(id string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch pubsub.CodeOf(err) {
	case 0:
		l.confirmed[id] = true
	case pubsub.ErrUnconfirmed:
		l.unknown++
	default:
		l.refused++
	}
	if err != nil && l.firstErr == nil {
		l.firstErr = err
	}
	l.check()
}

// publishedAll is told that no more orders come.
func (l *ledger) publishedAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.complete = true
	l.check()
}

// handled is told of every attempt of a group and what the handler returned.
func (l *ledger) handled(a *account, o Order, attempt int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if attempt > 1 {
		a.retries++
	}
	if err != nil {
		return
	}
	seq := l.seq[o.ID]
	switch {
	case a.handled[o.ID]:
		a.duplicates++
	case seq < a.last[o.Customer]:
		a.disorder++
	}
	a.handled[o.ID] = true
	a.last[o.Customer] = max(a.last[o.Customer], seq)
	l.check()
}

// deadLettered is told of every order that a group gave up on.
func (l *ledger) deadLettered(a *account, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.dead[id] = true
	l.check()
}

// check closes done when every confirmed order has an end in every group. mu is held.
func (l *ledger) check() {
	if l.isDone || !l.complete {
		return
	}
	for _, a := range l.groups {
		if len(a.handled)+len(a.dead) < len(l.confirmed) {
			return
		}
	}
	l.isDone = true
	close(l.done)
}

// problems lists what does not add up: nothing when every confirmed order was handled or kept by every group, once and in order.
// letters are the dead letters that the broker has, by group and order id.
func (l *ledger) problems(letters map[string][]string) (list []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if l.refused+l.unknown > 0 {
		add("%d orders were not published, %d may or may not be: %v", l.refused, l.unknown, l.firstErr)
	}
	for _, a := range l.groups {
		kept := map[string]bool{}
		for _, id := range letters[a.name] {
			kept[id] = true
		}
		var lost, both []string
		for id := range l.confirmed {
			switch {
			case !a.handled[id] && !kept[id]:
				lost = append(lost, id)
			case a.handled[id] && kept[id]:
				both = append(both, id)
			}
		}
		if len(lost) > 0 {
			slices.Sort(lost)
			add("%s: %d orders neither handled nor in the dead letters, %s the first", a.name, len(lost), lost[0])
		}
		if len(both) > 0 {
			slices.Sort(both)
			add("%s: %d orders handled and also in the dead letters, %s the first", a.name, len(both), both[0])
		}
		if len(kept) != len(a.dead) {
			add("%s: %d dead letters announced, %d found", a.name, len(a.dead), len(kept))
		}
		if a.disorder > 0 {
			add("%s: %d orders overtook an earlier one of their customer", a.name, a.disorder)
		}
	}
	return list
}
