package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/conformance/internal/history"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Properties of retries while they wait at the broker: what an operator sees of them, and does about them.

func listsWaiting() Gate {
	return caps("Waiting >= listed", func(c pubsub.Capabilities) bool { return c.Waiting >= pubsub.WaitingListed })
}

func managesWaiting() Gate {
	return caps("Waiting = managed", func(c pubsub.Capabilities) bool { return c.Waiting >= pubsub.WaitingManaged })
}

func waitingRetries() []Property {
	return []Property{
		{
			Name: "Waiting/Listed", Promises: []int{10}, Gate: redelivers().and(movesRetries()).and(listsWaiting()), run: waitingListed,
			Doc: "Each retry that waits at the broker is listed once, with its message, its attempt and when it is due, whether its group has members or not, and nothing else is.",
			refused: func(e *env) {
				if listsWaiting().Open(e.caps) {
					return
				}
				for _, err := range e.open().Waiting(e.Context(), e.topic("a"), "g") {
					e.wantUnsupported(err, "Waiting")
				}
			},
		},
		{
			Name: "Waiting/RetryNow", Promises: []int{10}, Gate: redelivers().and(movesRetries()).and(managesWaiting()), run: waitingRetryNow,
			Doc: "A retry that is not to wait any longer comes within RetryLate, once, and the others keep waiting.",
			refused: func(e *env) {
				if managesWaiting().Open(e.caps) {
					return
				}
				e.wantUnsupported(e.open().RetryNow(e.Context(), e.topic("a"), "g", pubsub.Waiting{}), "RetryNow")
			},
		},
		{
			Name: "Waiting/DeadLetterNow", Promises: []int{16, 19}, Gate: redelivers().and(movesRetries()).and(managesWaiting()), run: waitingDeadLetterNow,
			Doc: "A retry that is given up is in the dead letters as it came, with its attempts and why, and is not delivered; where it cannot be stored it is retried.",
			refused: func(e *env) {
				if managesWaiting().Open(e.caps) {
					return
				}
				e.wantUnsupported(e.open().DeadLetterNow(e.Context(), e.topic("a"), "g", pubsub.Waiting{}, ""), "DeadLetterNow")
			},
		},
		{
			Name: "Waiting/RacesWithItsTime", Promises: []int{5, 19}, Gate: redelivers().and(movesRetries()).and(managesWaiting()), run: waitingRaces,
			Doc: "Retries that two operators make due or give up at the moment when they are due are each handled once or given up once, and none is lost.",
		},
	}
}

// A waitingRoom is a group whose messages of the type "fails" wait for their retry once they have failed as often as their content type says.
type waitingRoom struct {
	e     *env
	l     *ledger
	topic string
	late  func(id string) time.Duration // how long each waits

	mu     sync.Mutex
	failed map[string]time.Time
}

func (e *env) waitingRoom(delay time.Duration) *waitingRoom {
	return &waitingRoom{e: e, l: e.ledger(), topic: e.topic("a"), late: func(string) time.Duration { return delay }, failed: map[string]time.Time{}}
}

// longWait is how long a retry waits that is not to come by itself: the longest that the broker lets one wait, if that is not long.
func (e *env) longWait() time.Duration {
	if e.caps.Tiers {
		return time.Hour
	}
	return min(time.Hour, e.caps.RetryIn)
}

func (r *waitingRoom) join(p *process) *pubsub.Consumer {
	r.e.Helper()
	return r.e.subscribe(p, r.e.competing(r.topic, "g"), r.l.handler(p, "g", onFails(func(_ context.Context, d *pubsub.Delivery) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		_, again := r.failed[d.ID]
		switch {
		case again:
			return nil
		case d.ContentType == "twice" && d.Attempt == 1:
			return pubsub.RetryAfter(time.Millisecond, errFails)
		case d.ContentType == "snoozed":
			r.failed[d.ID] = time.Now()
			return pubsub.Snooze(r.late(d.ID), errFails)
		}
		r.failed[d.ID] = time.Now()
		return pubsub.RetryAfter(r.late(d.ID), errFails)
	})))
}

// fill publishes messages that are handled, and then n that fail, and returns these once all of them are listed as waiting.
func (r *waitingRoom) fill(p *process, n int) ([]pubsub.Message, []pubsub.Waiting) {
	r.e.Helper()
	r.l.mustPublish(p, r.topic, r.l.messages(30, 5)...)
	msgs := r.l.messages(n, 5)
	for i := range msgs {
		m := &msgs[i]
		m.Type, m.ContentType, m.Time = "fails", []string{"", "twice", "snoozed"}[i%3], time.Unix(1_000_000_000, 0).UTC()
		m.Headers = pubsub.Headers{{Name: "a", Value: strconv.Itoa(i)}, {Name: "n", Value: "7", Kind: pubsub.HeaderInt}, {Name: "a", Value: ""}}
	}
	r.l.mustPublish(p, r.topic, msgs...)
	return msgs, r.await(p, n)
}

// list is what waits now.
func (r *waitingRoom) list(p *process) (all []pubsub.Waiting) {
	r.e.Helper()
	for w, err := range p.Waiting(r.e.Context(), r.topic, "g") {
		r.e.must(err, "list what waits")
		all = append(all, w)
	}
	return all
}

// await waits until n retries are listed.
func (r *waitingRoom) await(p *process, n int) (all []pubsub.Waiting) {
	r.e.Helper()
	r.e.until(patience, func() bool {
		r.mu.Lock()
		last := len(r.failed) == n // each has failed for the last time
		r.mu.Unlock()
		all = r.list(p)
		return last && len(all) == n
	})
	if len(all) != n {
		r.e.Fatalf("%d retries are listed as waiting, want %d", len(all), n)
	}
	return all
}

// wantSameWaits asserts that the same messages wait, until the same times.
func (r *waitingRoom) wantSameWaits(got, want []pubsub.Waiting, when string) {
	r.e.Helper()
	due := func(ws []pubsub.Waiting) (all []string) {
		for _, w := range ws {
			all = append(all, fmt.Sprintf("%s at %v", w.Record.Msg.ID, w.Due.UTC().Format(time.RFC3339Nano)))
		}
		slices.Sort(all)
		return all
	}
	if g, w := due(got), due(want); !slices.Equal(g, w) {
		r.e.Errorf("%s %d retries wait, %v; before there were %d, %v", when, len(g), history.Some(g), len(w), history.Some(w))
	}
}

func waitingListed(e *env) {
	const n = 100
	delay := e.longWait()
	r, p := e.waitingRoom(delay), e.open()
	member := r.join(p)
	e.subscribe(p, e.competing(r.topic, "h"), r.l.handler(p, "h", nil))
	if schedules().Open(e.caps) { // it waits, too, but not for a retry
		m := r.l.message("")
		m.Delay = delay
		r.l.mustPublish(p, r.topic, m)
		r.l.excuse(m.ID)
	}
	msgs, all := r.fill(p, n)
	for _, m := range msgs {
		i := slices.IndexFunc(all, func(w pubsub.Waiting) bool { return w.Record.Msg.ID == m.ID })
		if i < 0 {
			e.Errorf("the retry of %s is not listed", m.ID)
			continue
		}
		w := all[i]
		e.wantSame(*w.Record.Msg, m)
		want := map[string]int{"": 2, "twice": 3, "snoozed": 1}[m.ContentType]
		if w.Attempt() != want || w.Record.Topic != r.topic {
			e.Errorf("the retry of %s is listed as attempt %d in %s, want %d in %s", m.ID, w.Attempt(), w.Record.Topic, want, r.topic)
		}
		r.mu.Lock()
		due := w.Due.Sub(r.failed[m.ID])
		r.mu.Unlock()
		if due < delay || due > delay+e.caps.RetryLate+time.Second {
			e.Errorf("a retry that waits for %v is listed as due after %v", delay, due)
		}
		r.l.excuse(m.ID)
	}
	for w, err := range p.Waiting(e.Context(), r.topic, "h") {
		e.Errorf("a group whose messages have not failed has a waiting retry, %v (%v)", w, err)
	}
	for _, err := range p.Waiting(e.Context(), r.topic, "nobody") {
		e.wantCode(err, pubsub.ErrNotFound, "listing the retries of a group that there is not")
	}
	e.must(member.Drain(e.Context()), "drain")
	other := e.open()
	r.wantSameWaits(r.list(other), all, "without members")
	r.l.await("g", "h")
	r.l.verify()
}

func waitingRetryNow(e *env) {
	const n = 20
	r, p, operator := e.waitingRoom(e.longWait()), e.open(), e.open()
	member := r.join(p)
	_, all := r.fill(p, n)
	slices.SortFunc(all, func(a, b pubsub.Waiting) int { return strings.Compare(a.Record.Msg.ID, b.Record.Msg.ID) })
	before := map[string]int{}
	for _, w := range all {
		before[w.Record.Msg.ID] = len(r.l.calls("g", w.Record.Msg.ID))
	}
	comes := func(some []pubsub.Waiting) bool {
		return e.until(e.caps.RetryLate+patience/3, func() bool {
			return !slices.ContainsFunc(some, func(w pubsub.Waiting) bool { return len(r.l.calls("g", w.Record.Msg.ID)) == before[w.Record.Msg.ID] })
		})
	}
	soon, rest := all[:n/2], all[n/2:]
	for _, w := range soon {
		if err := operator.RetryNow(e.Context(), r.topic, "g", w); err != nil {
			e.Errorf("retrying %s at once: %v", w.Record.Msg.ID, err)
		}
	}
	asked := time.Now()
	if !comes(soon) {
		e.Errorf("of %d retries that were not to wait any longer some do not come", len(soon))
	}
	if took := time.Since(asked); took > e.caps.RetryLate+2*time.Second {
		e.Errorf("retries that were not to wait any longer took %v", took)
	}
	r.wantSameWaits(r.list(operator), rest, "when others were retried")
	for _, w := range soon {
		e.wantCode(operator.RetryNow(e.Context(), r.topic, "g", w), pubsub.ErrNotFound, "retrying what waits no more")
	}
	e.must(member.Drain(e.Context()), "drain")
	for _, w := range rest {
		if err := operator.RetryNow(e.Context(), r.topic, "g", w); err != nil {
			e.Errorf("retrying %s at once, without members: %v", w.Record.Msg.ID, err)
		}
	}
	r.wantSameWaits(r.list(operator), nil, "when all were retried")
	r.join(p)
	if !comes(rest) {
		e.Errorf("of %d retries that were not to wait for a member some do not come", len(rest))
	}
	r.l.await("g")
	time.Sleep(e.caps.RetryLate)
	for _, w := range all {
		calls := r.l.calls("g", w.Record.Msg.ID)
		if got := len(calls) - before[w.Record.Msg.ID]; got != 1 {
			e.Errorf("%s was to be retried at once, and came %d times", w.Record.Msg.ID, got)
		} else if a := calls[len(calls)-1].attempt; a != w.Attempt() {
			e.Errorf("the retry of %s comes as attempt %d, and waited as %d", w.Record.Msg.ID, a, w.Attempt())
		}
	}
	r.l.verify()
}

func waitingDeadLetterNow(e *env) {
	const n, delay, why = 20, 10 * time.Second, "nobody wants it"
	r, p, operator := e.waitingRoom(delay), e.open(), e.open()
	r.join(p)
	msgs, all := r.fill(p, n)
	slices.SortFunc(all, func(a, b pubsub.Waiting) int { return strings.Compare(a.Record.Msg.ID, b.Record.Msg.ID) })
	unwanted, refused, rest := all[:n/2], all[n/2], all[n/2:]
	before := map[string]int{}
	for _, w := range unwanted {
		before[w.Record.Msg.ID] = len(r.l.calls("g", w.Record.Msg.ID))
		if err := operator.DeadLetterNow(e.Context(), r.topic, "g", w, why); err != nil {
			e.Errorf("giving up %s: %v", w.Record.Msg.ID, err)
		}
		r.l.excuse(w.Record.Msg.ID)
	}
	for _, w := range unwanted {
		e.wantCode(operator.DeadLetterNow(e.Context(), r.topic, "g", w, why), pubsub.ErrNotFound, "giving up what waits no more")
	}
	operator.link.faults(func(o pubsub.Out) action {
		if o.To.Kind == pubsub.PlaceDead {
			return action{kind: refuse, err: brokerError{pubsub.ErrDenied, true}}
		}
		return action{}
	})
	e.wantCode(operator.DeadLetterNow(e.Context(), r.topic, "g", refused, why), pubsub.ErrDenied, "giving up a retry whose dead letter is denied")
	operator.link.faults(nil)
	ids := func(ws []pubsub.Waiting) (all []string) {
		for _, w := range ws {
			all = append(all, w.Record.Msg.ID)
		}
		slices.Sort(all)
		return all
	}
	if got, want := ids(r.list(operator)), ids(rest); !slices.Equal(got, want) {
		e.Errorf("when %d retries were given up %d wait, %v, want %d, %v", len(unwanted), len(got), history.Some(got), len(want), history.Some(want))
	}
	for _, d := range e.wantDead(p, r.topic, "g", "operator", len(unwanted)) {
		i := slices.IndexFunc(unwanted, func(w pubsub.Waiting) bool { return w.Record.Msg.ID == d.Msg.ID })
		if i < 0 {
			e.Errorf("%s is in the dead letters, and was not given up", d.Msg.ID)
			continue
		}
		h := d.Msg.Headers
		got := *d.Msg
		got.Headers = slices.DeleteFunc(slices.Clone(h), func(h pubsub.Header) bool { return strings.HasPrefix(h.Name, "omnibus-dlq-") })
		e.wantSame(got, msgs[slices.IndexFunc(msgs, func(m pubsub.Message) bool { return m.ID == got.ID })])
		if a := h.Get("omnibus-dlq-attempts"); a != strconv.Itoa(int(unwanted[i].Record.Failed)) {
			e.Errorf("the dead letter of %s says %q attempts, want %d", d.Msg.ID, a, unwanted[i].Record.Failed)
		}
		if text := h.Get("omnibus-dlq-error"); !strings.Contains(text, why) || h.Get("omnibus-dlq-source-topic") != r.topic || h.Get("omnibus-dlq-source-group") != "g" {
			e.Errorf("the dead letter of %s has the headers %v", d.Msg.ID, h)
		}
	}
	r.l.await("g")
	wait := delay + e.caps.RetryLate + time.Second
	if virtual() { // also past the time for which a retry is held while its dead letter is stored
		wait += 2 * time.Minute
	}
	time.Sleep(wait)
	for _, w := range unwanted {
		if got := len(r.l.calls("g", w.Record.Msg.ID)); got != before[w.Record.Msg.ID] {
			e.Errorf("%s was given up after %d attempts, and came again", w.Record.Msg.ID, before[w.Record.Msg.ID])
		}
	}
	if got := len(e.dead(p, r.topic, "g")); got != len(unwanted) {
		e.Errorf("%d retries were given up, and there are %d dead letters", len(unwanted), got)
	}
	var lag pubsub.Lag
	if lagged().Open(e.caps) && !e.until(patience/3, func() bool {
		var err error
		lag, err = p.Lag(e.Context(), r.topic, "g")
		e.must(err, "lag")
		return lag.Messages == 0
	}) {
		e.Errorf("when all retries have come or were given up the group is %d messages behind", lag.Messages)
	}
	r.l.verify()
}

func waitingRaces(e *env) {
	const n, first, spread = 80, 3 * time.Second, 20 * time.Millisecond
	r, p := e.waitingRoom(0), e.open()
	r.late = func(id string) time.Duration { return first + time.Duration(hash(id)%n)*spread }
	r.join(p)
	r.l.mustPublish(p, r.topic, r.l.messages(30, 5)...)
	msgs := r.l.messages(n, 5)
	for i := range msgs {
		msgs[i].Type = "fails"
	}
	r.l.mustPublish(p, r.topic, msgs...)

	var mu sync.Mutex
	givenUp, lost := map[string]bool{}, 0
	end := time.Now().Add(patience)
	var operators sync.WaitGroup
	for range 2 {
		q := e.open()
		operators.Go(func() {
			for seen := false; time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
				all := r.list(q)
				if seen = seen || len(all) > 0; seen && len(all) == 0 {
					return
				}
				for _, w := range all {
					id, left, lead := w.Record.Msg.ID, time.Until(w.Due), 60*time.Millisecond // right before it is due, or as it is
					if hash(id)%4 < 2 {
						lead = first // or some time before
					}
					if left > lead {
						continue
					}
					time.Sleep(min(left, time.Duration(e.rng.below(60))*time.Millisecond))
					var err error
					if hash(id)%2 == 0 {
						err = q.RetryNow(e.Context(), r.topic, "g", w)
					} else if err = q.DeadLetterNow(e.Context(), r.topic, "g", w, ""); err == nil {
						mu.Lock()
						givenUp[id] = true
						mu.Unlock()
						r.l.excuse(id)
					}
					if errors.Is(err, pubsub.ErrNotFound) {
						mu.Lock()
						lost++
						mu.Unlock()
					} else if err != nil {
						e.Errorf("making %s due, or giving it up, as its time came: %v", id, err)
					}
					break // what is listed is old by now
				}
			}
		})
	}
	operators.Wait()
	r.l.await("g")
	time.Sleep(e.caps.RetryLate)
	dead := map[string]int{}
	for _, d := range e.dead(p, r.topic, "g") {
		dead[d.Msg.ID]++
	}
	e.Logf("%d of %d retries were given up, %d times the retry was faster than an operator", len(givenUp), n, lost)
	for _, m := range msgs {
		calls, letters := len(r.l.calls("g", m.ID)), dead[m.ID]
		if given := givenUp[m.ID]; given && (calls != 1 || letters != 1) || !given && (calls != 2 || letters != 0) {
			e.Errorf("message %s, which failed once, has %d handler calls and %d dead letters; given up: %v", m.ID, calls, letters, given)
		}
	}
	r.l.verify()
}
