package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A ledger records what was published to some topics and what the groups made of it, and says afterwards whether that keeps the promises.
type ledger struct {
	e *env

	mu     sync.Mutex
	sent   []*sent // in the order in which they were published
	byID   map[string]*sent
	next   map[string]int // by key: how many there are
	groups map[string]*groupLog
	order  []string // of groups
}

// sent is one published message.
type sent struct {
	msg    pubsub.Message
	seq    int // among those of its key
	told   bool
	err    error // once told
	excuse bool  // given up on purpose: need not be handled
}

func (s *sent) confirmed() bool { return s.told && s.err == nil }

// groupLog is what one group got.
type groupLog struct {
	receipts []receipt
	first    map[string]int // by id: index in receipts
	done     map[string]int // by id: how often a handler has succeeded
	last     map[string]*progress
	bound    int
	from     int // of ledger.sent: where the group begins
	ordered  bool
	breaches []string // of order
	unknown  []string // ids that nobody published
}

// progress is how far a key is.
type progress struct {
	p    *process
	id   string
	seq  int
	open int // handlers that run
	ok   bool
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
	l := &ledger{e: e, byID: map[string]*sent{}, next: map[string]int{}, groups: map[string]*groupLog{}}
	e.mu.Lock()
	e.ledgers = append(e.ledgers, l)
	e.mu.Unlock()
	return l
}

// group is the log of a group. l.mu is held.
func (l *ledger) group(name string) *groupLog {
	g := l.groups[name]
	if g == nil {
		g = &groupLog{first: map[string]int{}, done: map[string]int{}, last: map[string]*progress{}}
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
		l.group(name).ordered = true
	}
	return l
}

// allow raises the number of duplicates that a group may see.
func (l *ledger) allow(group string, duplicates int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.group(group).bound += duplicates
}

// starts says that a group begins with the n-th message that was or will be published: it gets none of those before.
func (l *ledger) starts(group string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.group(group).from = n
}

// startsNow is starts with the next message.
func (l *ledger) startsNow(group string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.group(group).from = len(l.sent)
}

// excuse says that messages need not be handled: they were given up on purpose.
func (l *ledger) excuse(ids ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		if s := l.byID[id]; s != nil {
			s.excuse = true
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
	s := &sent{msg: m.Clone(), seq: l.next[m.Key]}
	l.next[m.Key]++
	l.sent = append(l.sent, s)
	l.byID[m.ID] = s
	return s
}

func (l *ledger) tell(s *sent, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.told, s.err = true, err
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
		pr := l.begin(p, group, d)
		if pr == nil {
			return errKilled
		}
		ok := false
		defer func() { l.end(p, group, d.ID, pr, ok) }()
		var err error
		if h != nil {
			err = h(ctx, d)
		}
		ok = err == nil
		return err
	}
}

// begin records the start of a handler; nil means that its process is dead.
func (l *ledger) begin(p *process, group string, d *pubsub.Delivery) *progress {
	if p.link.isDead() {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.group(group)
	if _, ok := g.first[d.ID]; !ok {
		g.first[d.ID] = len(g.receipts)
	}
	g.receipts = append(g.receipts, receipt{
		msg: d.Message, topic: d.Topic, attempt: d.Attempt, deliveries: d.Deliveries, who: p, at: time.Now(), pos: d.Position,
	})
	s := l.byID[d.ID]
	if s == nil {
		g.unknown = append(g.unknown, d.ID)
		return &progress{}
	}
	if d.Key == "" || !g.ordered {
		return &progress{p: p, id: d.ID, seq: s.seq}
	}
	prev := g.last[d.Key]
	switch {
	case prev == nil:
	case prev.open > 0:
		g.breaches = append(g.breaches, fmt.Sprintf("%s starts while %s of the same key runs", d.ID, prev.id))
	case s.seq > prev.seq && !prev.ok && !l.excused(prev.id):
		g.breaches = append(g.breaches, fmt.Sprintf("%s starts before %s of the same key is done", d.ID, prev.id))
	case s.seq < prev.seq && g.done[d.ID] == 0:
		g.breaches = append(g.breaches, fmt.Sprintf("%s comes for the first time after %s of the same key", d.ID, prev.id))
	}
	pr := &progress{p: p, id: d.ID, seq: s.seq, open: 1}
	g.last[d.Key] = pr
	return pr
}

// excused says whether a message was given up on purpose. l.mu is held.
func (l *ledger) excused(id string) bool { s := l.byID[id]; return s != nil && s.excuse }

func (l *ledger) end(p *process, group, id string, pr *progress, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	pr.open, pr.ok = 0, ok
	if ok && !p.link.isDead() {
		l.group(group).done[id]++
	}
}

// forget lets go of the handlers of a killed process: whatever they do, nobody knows.
func (l *ledger) forget(p *process) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, g := range l.groups {
		for key, pr := range g.last {
			if pr.p == p && !pr.ok {
				delete(g.last, key)
			}
		}
	}
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
	for _, s := range l.sent[g.from:] {
		if s.confirmed() && !s.excuse && g.done[s.msg.ID] == 0 {
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
		g := l.group(name)
		if lost := l.missing(g); len(lost) > 0 {
			l.e.Errorf("%s lost %d of %d confirmed messages: %s", name, len(lost), l.confirmedN(), some(lost))
		}
		if len(g.unknown) > 0 {
			l.e.Errorf("%s got %d messages that were not published: %s", name, len(g.unknown), some(g.unknown))
		}
		if ids := l.early(g); len(ids) > 0 {
			l.e.Errorf("%s got %d messages from before its start: %s", name, len(ids), some(ids))
		}
		if ids := l.refused(g); len(ids) > 0 {
			l.e.Errorf("%s got %d messages whose publish said that they were not stored: %s", name, len(ids), some(ids))
		}
		if ids := l.changed(g); len(ids) > 0 {
			l.e.Errorf("%s got %d messages with another key or payload: %s", name, len(ids), some(ids))
		}
		if ids := duplicates(g); len(ids) > g.bound {
			l.e.Errorf("%s handled %d messages again, at most %d are allowed: %s", name, len(ids), g.bound, some(ids))
		}
		if len(g.breaches) > 0 {
			l.e.Errorf("%s: the order was broken %d times: %s", name, len(g.breaches), some(g.breaches))
		}
	}
}

func (l *ledger) confirmedN() int {
	n := 0
	for _, s := range l.sent {
		if s.confirmed() {
			n++
		}
	}
	return n
}

// refused returns what a group got although its publish failed for certain.
func (l *ledger) refused(g *groupLog) []string {
	var ids []string
	for id := range g.first {
		if s := l.byID[id]; s != nil && s.told && s.err != nil && !errors.Is(s.err, pubsub.ErrUnconfirmed) {
			ids = append(ids, id)
		}
	}
	return ids
}

// early returns what a group got from before its start.
func (l *ledger) early(g *groupLog) []string {
	var ids []string
	for _, s := range l.sent[:g.from] {
		if _, ok := g.first[s.msg.ID]; ok {
			ids = append(ids, s.msg.ID)
		}
	}
	return ids
}

func (l *ledger) changed(g *groupLog) []string {
	var ids []string
	for _, r := range g.receipts {
		s := l.byID[r.msg.ID]
		if s != nil && (s.msg.Key != r.msg.Key || !bytes.Equal(s.msg.Payload, r.msg.Payload)) {
			ids = append(ids, r.msg.ID)
		}
	}
	return ids
}

// duplicates returns the ids of successes beyond the first.
func duplicates(g *groupLog) []string {
	var ids []string
	for id, n := range g.done {
		for range n - 1 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// figures adds what the ledger knows to a property's row in the report.
func (l *ledger) figures(r *PropertyResult) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.Confirmed += l.confirmedN()
	for _, name := range l.order {
		g := l.groups[name]
		r.Received += len(g.done)
		r.Lost += len(l.missing(g))
		r.Duplicates += len(duplicates(g))
		r.DuplicateBound += g.bound
		r.OrderViolations += len(g.breaches)
	}
}

// some shows the first few of a list.
func some(list []string) string {
	const few = 5
	if len(list) <= few {
		return fmt.Sprint(list)
	}
	return fmt.Sprintf("%v and %d more", list[:few], len(list)-few)
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
	delete(l.group(group).last, key)
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
