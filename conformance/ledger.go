package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/conformance/internal/history"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A ledger records what was published to some topics and what the groups made of it, and has the history judged afterwards.
type ledger struct {
	e *env

	mu     sync.Mutex
	past   history.History
	runs   int     // handler calls so far
	sent   []*sent // in the order in which they were published
	byID   map[string]*sent
	untold int // publishes without their fate
	failed int // publishes that returned an error
	groups map[string]*groupLog
	order  []string // of groups
}

// sent is one published message.
type sent struct {
	msg    pubsub.Message
	told   bool
	err    error // once told
	excuse bool  // given up on purpose: need not be handled
}

func (s *sent) confirmed() bool { return s.told && s.err == nil }

// groupLog is what one group got.
type groupLog struct {
	receipts []receipt
	done     map[string]bool // handled at least once
	promise  history.Promise
}

// A receipt is one call of a handler.
type receipt struct {
	msg        pubsub.Message
	topic      string
	attempt    int
	deliveries int
	who        *process
	at         time.Time
	pos        pubsub.Position
}

func (e *env) ledger() *ledger {
	l := &ledger{e: e, byID: map[string]*sent{}, groups: map[string]*groupLog{}}
	e.mu.Lock()
	e.ledgers = append(e.ledgers, l)
	e.mu.Unlock()
	return l
}

// group is the log of a group. l.mu is held.
func (l *ledger) group(name string) *groupLog {
	g := l.groups[name]
	if g == nil {
		g = &groupLog{done: map[string]bool{}, promise: history.Promise{Group: name}}
		l.groups[name] = g
		l.order = append(l.order, name)
	}
	return g
}

// ordered says that a group promises the order of keys: then a message that starts before its predecessor is settled is a breach.
func (l *ledger) ordered(groups ...string) *ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range groups {
		l.group(name).promise.Ordered = true
	}
	return l
}

// allow raises the number of duplicates that a group may see.
func (l *ledger) allow(group string, duplicates int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.group(group).promise.Duplicates += duplicates
}

// strikes allows a group the duplicates that so many faults may cause.
func (l *ledger) strikes(group string, faults int, load history.Load) {
	l.allow(group, load.Duplicates(faults))
}

// starts says that a group begins with the n-th message that was or will be published: it gets none of those before.
func (l *ledger) starts(group string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.group(group).promise.Begins = n
}

// startsNow is starts with the next message.
func (l *ledger) startsNow(group string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.group(group).promise.Begins = len(l.sent)
}

// write adds an event to the history. l.mu is held.
func (l *ledger) write(ev history.Event) {
	ev.At = time.Now()
	l.past = append(l.past, ev)
}

// excuse says that messages need not be handled: they were given up on purpose.
func (l *ledger) excuse(ids ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		if s := l.byID[id]; s != nil {
			s.excuse = true
			l.write(history.Event{Kind: history.GivenUp, ID: id})
		}
	}
}

// messages makes n messages, spread over keys; none of them has a key where keys is 0.
func (l *ledger) messages(n, keys int) []pubsub.Message {
	msgs := make([]pubsub.Message, n)
	for i := range msgs {
		key := ""
		if keys > 0 {
			key = fmt.Sprintf("key-%d", i%keys)
		}
		msgs[i] = l.message(key)
	}
	return msgs
}

func (l *ledger) message(key string) pubsub.Message {
	id := fmt.Sprintf("%s-%d", l.e.run, l.e.ids.Add(1))
	return pubsub.Message{ID: id, Key: key, Payload: []byte("payload of " + id)}
}

// note records that a message is about to be published.
func (l *ledger) note(m pubsub.Message) *sent {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &sent{msg: m.Clone()}
	l.sent = append(l.sent, s)
	l.byID[m.ID] = s
	l.untold++
	l.write(history.Event{Kind: history.Published, ID: m.ID, Key: m.Key, Sum: hash(string(m.Payload))})
	return s
}

func (l *ledger) tell(s *sent, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.told, s.err = true, err
	l.untold--
	if err != nil {
		l.failed++
	}
	kind := history.Refused
	switch {
	case err == nil:
		kind = history.Accepted
	case errors.Is(err, pubsub.ErrUnconfirmed):
		kind = history.Unconfirmed
	}
	l.write(history.Event{Kind: kind, ID: s.msg.ID})
}

// publish sends messages in order and waits until each has its fate. Failing is recorded, not judged.
func (l *ledger) publish(p pubsub.Publisher, topic string, msgs ...pubsub.Message) {
	var wg sync.WaitGroup
	for _, m := range msgs {
		s := l.note(m)
		wg.Add(1)
		p.PublishAsync(l.e.Context(), topic, m, func(_ pubsub.Receipt, err error) {
			l.tell(s, err)
			wg.Done()
		})
	}
	wg.Wait()
}

// mustPublish is publish where an error means that the property cannot go on.
func (l *ledger) mustPublish(p pubsub.Publisher, topic string, msgs ...pubsub.Message) {
	l.e.Helper()
	l.publish(p, topic, msgs...)
	for _, m := range msgs {
		l.mu.Lock()
		err := l.byID[m.ID].err
		l.mu.Unlock()
		l.e.must(err, "publish %s", m.ID)
	}
}

// handler records what h is called with, by which process, and what it returns. nil handles everything.
func (l *ledger) handler(p *process, group string, h pubsub.Handler) pubsub.Handler {
	return func(ctx context.Context, d *pubsub.Delivery) error {
		run := l.begin(p, group, d)
		if run == 0 {
			return errKilled
		}
		ok := false
		defer func() { l.end(p, group, d.ID, run, ok) }()
		var err error
		if h != nil {
			err = h(ctx, d)
		}
		ok = err == nil
		return err
	}
}

// begin records the start of a handler, and numbers it; 0 means that its process is dead.
func (l *ledger) begin(p *process, group string, d *pubsub.Delivery) (run int) {
	if p.link.isDead() {
		return 0
	}
	return l.started(p.name, group, receipt{
		msg: d.Message, topic: d.Topic, attempt: d.Attempt, deliveries: d.Deliveries, who: p, at: time.Now(), pos: d.Position,
	})
}

// started records and numbers a handler's call, in this process or in another.
func (l *ledger) started(member, group string, r receipt) (run int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.group(group)
	g.receipts = append(g.receipts, r)
	l.runs++
	l.write(history.Event{
		Kind: history.Started, ID: r.msg.ID, Key: r.msg.Key, Sum: hash(string(r.msg.Payload)), Group: group, Member: member, Run: l.runs,
	})
	return l.runs
}

// end records how a handler ended. What that of a killed process says reaches nobody.
func (l *ledger) end(p *process, group, id string, run int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended(group, id, run, ok && !p.link.isDead())
}

// ended records how a handler of any process ended. l.mu is held.
func (l *ledger) ended(group, id string, run int, ok bool) {
	kind := history.Failed
	if ok {
		kind = history.Succeeded
		l.group(group).done[id] = true
	}
	l.write(history.Event{Kind: kind, Run: run})
}

// forget says that a process has lost what it held: whatever its handlers still do, it is no longer theirs.
func (l *ledger) forget(p *process) { l.forgetMember(p.name) }

func (l *ledger) forgetMember(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write(history.Event{Kind: history.Cut, Member: name})
}

// backlog is how many messages have been published, and neither failed nor been handled by a group.
func (l *ledger) backlog(group string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.sent) - l.failed - len(l.group(group).done)
}

// publishing is how many publishes have no fate yet.
func (l *ledger) publishing() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.untold
}

// handled says how many messages a group has handled, each counted once.
func (l *ledger) handled(group string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.groups[group]
	if g == nil {
		return 0
	}
	return len(g.done)
}

// calls returns the handler calls of a group, of all messages or of one.
func (l *ledger) calls(group string, id ...string) []receipt {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.groups[group]
	if g == nil {
		return nil
	}
	var rs []receipt
	for _, r := range g.receipts {
		if len(id) == 0 || slices.Contains(id, r.msg.ID) {
			rs = append(rs, r)
		}
	}
	return rs
}

// missing returns what a group should have handled and has not. l.mu is held.
func (l *ledger) missing(g *groupLog) []string {
	var ids []string
	for _, s := range l.sent[g.promise.Begins:] {
		if s.confirmed() && !s.excuse && !g.done[s.msg.ID] {
			ids = append(ids, s.msg.ID)
		}
	}
	return ids
}

// await waits until the groups (none named: all) have handled everything that was confirmed. It judges nothing: verify does.
func (l *ledger) await(groups ...string) bool {
	return l.e.until(patience, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(groups) == 0 {
			groups = slices.Clone(l.order)
		}
		for _, name := range groups {
			if len(l.missing(l.group(name))) > 0 {
				return false
			}
		}
		return true
	})
}

// verify asserts, for the groups (none named: all), that nothing confirmed is lost, nothing refused or unknown was received, what came
// is what was sent, duplicates are within their bound, and the order of keys was kept where it is promised.
func (l *ledger) verify(groups ...string) {
	l.e.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(groups) == 0 {
		groups = l.order
	}
	for _, name := range groups {
		for _, complaint := range l.past.Check(l.group(name).promise).Complaints() {
			l.e.Errorf("%s", complaint)
		}
	}
}

// figures adds what the ledger knows to a property's row in the report.
func (l *ledger) figures(r *PropertyResult) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sent {
		if s.confirmed() {
			r.Confirmed++
		}
	}
	for _, name := range l.order {
		v := l.past.Check(l.groups[name].promise)
		r.Received += v.Received
		r.Lost += len(v.Lost)
		r.Duplicates += len(v.Again)
		r.DuplicateBound += v.Duplicates
		r.OrderViolations += len(v.Breaches)
	}
}

// all returns what was published, in order.
func (l *ledger) all() []*sent {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.sent)
}

// fate is the error that a publish returned.
func (l *ledger) fate(id string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byID[id].err
}

// restart forgets how far a key was, because its consumer has ended and what was waiting comes again.
func (l *ledger) restart(group, key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write(history.Event{Kind: history.Restarted, Group: group, Key: key})
}

// knows says whether a message was published through this ledger.
func (l *ledger) knows(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byID[id] != nil
}

// progress says how far a group is.
func (l *ledger) progress(group string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.group(group)
	return fmt.Sprintf("%d handled, %d missing", len(g.done), len(l.missing(g)))
}
