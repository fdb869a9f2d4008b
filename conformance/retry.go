package conformance

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/pubsub"
)

func retry() []Property {
	return append([]Property{
		{
			Name: "Retry/MaxAttempts", Promises: []int{9, 19}, Gate: redelivers(), run: maxAttempts,
			Doc: "A message that always fails has exactly MaxAttempts handler calls, with three members, and is then dead-lettered.",
		},
		{
			Name: "Retry/MaxAttemptsAcrossCrash", Promises: []int{9, 19}, Gate: redelivers().and(remembers()), run: maxAttemptsAcrossCrash,
			Doc: "A message that always fails has MaxAttempts handler calls, and at most two more where a member died with it.",
		},
		{
			Name: "Retry/DefaultPolicy", Promises: []int{10, 17}, Gate: redelivers(), run: defaultPolicy,
			Doc: "The zero policy is 10 attempts, after delays with full jitter that double from 1 s to 5 min.",
			needs: func(Harness) string {
				if !virtual() {
					return "a virtual clock: it takes ten minutes"
				}
				return ""
			},
		},
		{
			Name: "Retry/Permanent", Promises: []int{9, 19}, Gate: redelivers(), run: permanent,
			Doc: "A permanent error skips the retries.",
		},
		{
			Name: "Retry/RetryAfter", Promises: []int{10}, Gate: redelivers(), run: retryAfter,
			Doc: "RetryAfter takes the place of the policy's delay, and counts as a failure.",
		},
		{
			Name: "Retry/Snooze", Promises: []int{9, 10}, Gate: redelivers(), run: snooze,
			Doc: "Snooze delivers again after its delay and costs no attempt.",
		},
		{
			Name: "Retry/SnoozeAcrossReconnects", Promises: []int{9}, Gate: redelivers(), run: snoozeAcrossReconnects, waits: 4 * time.Second,
			Doc: "A message that is snoozed again and again is never dead-lettered, also when sessions drop meanwhile.",
		},
		{
			Name: "Retry/Pause", Promises: []int{9}, Gate: redelivers(), run: pauses, waits: 3 * time.Second,
			Doc: "Pause hands the message back at no cost and stops the subscription for its time.",
		},
		{
			Name: "Retry/Rules", Promises: []int{9, 10}, Gate: redelivers(), run: rules,
			Doc: "An error that a rule matches is retried by the rule's policy, and its category is in the dead letter.",
		},
		{
			Name: "Retry/Panic", Promises: []int{15}, Gate: redelivers(), run: panics,
			Doc: "A handler that panics has failed, and everything else goes on.",
		},
		{
			Name: "Retry/Hang", Promises: []int{9}, Gate: redelivers(), run: hangs,
			Doc: "A handler past its timeout has failed, and a message that always hangs is dead-lettered as a hang.",
		},
		{
			Name: "Retry/ProcessKiller", Promises: []int{9}, Gate: redelivers().and(countsDeliveries()), run: processKiller,
			Doc: "A message that kills its process is started at most MaxAttempts + 2 times and dead-lettered, and its 99 prefetched neighbours succeed uncharged.",
		},
		{
			Name: "Retry/OthersDoNotWait", Promises: []int{6, 10}, Gate: redelivers(), run: othersDoNotWait,
			Doc: "While one message waits ten minutes for its retry the messages of other keys take no longer than before.",
		},
		{
			Name: "Retry/MovedPartition", Promises: []int{9, 10}, Gate: redelivers().and(movesRetries()), run: movedPartition, waits: 15 * time.Second,
			Doc: "A retry that waits while members come, leave and crash is handled once, never early, with its attempts, and not later than the bound.",
		},
		{
			Name: "Retry/EachCopyIsStored", Promises: []int{19}, Gate: redelivers(), run: eachCopyIsStored,
			Doc: "A retry, a dead letter, its replay, and the dead letter of the replay are each stored, however soon they follow.",
		},
	}, outagesAndPoison()...)
}

// failing publishes plain messages, and then n that fail.
func (e *env) failing(p *process, l *ledger, topic string, n, keys int) []pubsub.Message {
	e.Helper()
	l.mustPublish(p, topic, l.messages(30, keys)...)
	msgs := l.messages(n, keys)
	for i := range msgs {
		msgs[i].Type = "fails"
		l.mustPublish(p, topic, msgs[i])
		l.excuse(msgs[i].ID)
	}
	return msgs
}

// onFails lets the messages of failing go to h.
func onFails(h pubsub.Handler) pubsub.Handler {
	return func(ctx context.Context, d *pubsub.Delivery) error {
		if d.Type == "fails" {
			return h(ctx, d)
		}
		return nil
	}
}

// wantDead waits for n dead letters, asserts that there are as many, and that each has the reason.
func (e *env) wantDead(p *process, topic, group, reason string, n int) []pubsub.Record {
	e.Helper()
	var dead []pubsub.Record
	e.until(patience, func() bool { dead = e.dead(p, topic, group); return len(dead) >= n })
	if len(dead) != n {
		e.Errorf("%d messages are in the dead letters, want %d", len(dead), n)
	}
	for _, r := range dead {
		if got := r.Msg.Headers.Get("omnibus-dlq-reason"); got != reason {
			e.Errorf("the dead letter of %s has the reason %q, want %q", r.Msg.ID, got, reason)
		}
	}
	return dead
}

// wantCalls asserts how often the handler was called with each message.
func (e *env) wantCalls(l *ledger, msgs []pubsub.Message, n int) {
	e.Helper()
	for _, m := range msgs {
		if got := len(l.calls("g", m.ID)); got != n {
			e.Errorf("the handler was called %d times with %s, want %d", got, m.ID, n)
		}
	}
}

func maxAttempts(e *env) {
	const attempts = 4
	for _, keys := range []int{0, 5} {
		topic, l := e.topic(fmt.Sprintf("keys%d", keys)), e.ledger()
		s := e.sub(topic, "g")
		s.Concurrency, s.Retry = 2, pubsub.Policy{MaxAttempts: attempts, Delays: []time.Duration{20 * time.Millisecond}}
		if keys == 0 {
			s.Order = pubsub.OrderNone
		}
		var p *process
		for range 3 {
			p = e.open()
			e.subscribe(p, s, l.handler(p, "g", onFails(fails)))
		}
		msgs := e.failing(p, l, topic, 15, keys)
		dead := e.wantDead(p, topic, "g", "max-attempts", len(msgs))
		e.wantCalls(l, msgs, attempts)
		for _, r := range dead {
			if got := r.Msg.Headers.Get("omnibus-dlq-attempts"); got != strconv.Itoa(attempts) {
				e.Errorf("the dead letter of %s says %q attempts, want %d", r.Msg.ID, got, attempts)
			}
		}
		l.await("g")
		l.verify()
	}
}

func permanent(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	e.subscribe(p, s, l.handler(p, "g", onFails(func(context.Context, *pubsub.Delivery) error {
		return fmt.Errorf("wrapped: %w", pubsub.Permanent(errFails))
	})))
	msgs := e.failing(p, l, topic, 20, 5)
	e.wantDead(p, topic, "g", "permanent", len(msgs))
	e.wantCalls(l, msgs, 1)
	l.await("g")
	l.verify()
}

func retryAfter(e *env) {
	const delay = 200 * time.Millisecond
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.competing(topic, "g")
	s.Retry = pubsub.Policy{MaxAttempts: 3, Delays: []time.Duration{time.Hour}}
	e.subscribe(p, s, l.handler(p, "g", onFails(func(context.Context, *pubsub.Delivery) error {
		return pubsub.RetryAfter(delay, errFails)
	})))
	msgs := e.failing(p, l, topic, 20, 0)
	e.until(delay*3+e.caps.RetryLate*2+2*time.Second, func() bool { return len(e.dead(p, topic, "g")) == len(msgs) })
	for _, m := range msgs {
		calls := l.calls("g", m.ID)
		for i := 1; i < len(calls); i++ {
			took := calls[i].at.Sub(calls[i-1].at)
			if took < delay || took > delay+e.caps.RetryLate+time.Second {
				e.Errorf("RetryAfter(%v) brought %s again after %v", delay, m.ID, took)
			}
			if calls[i].attempt != i+1 {
				e.Errorf("call %d with %s says attempt %d", i+1, m.ID, calls[i].attempt)
			}
		}
	}
	e.wantCalls(l, msgs, 3)
	e.wantDead(p, topic, "g", "max-attempts", len(msgs))
	l.await("g")
	l.verify()
}

func snooze(e *env) {
	const delay, times = 100 * time.Millisecond, 5
	for _, keys := range []int{0, 5} {
		p, topic, l := e.open(), e.topic(fmt.Sprintf("keys%d", keys)), e.ledger()
		s := e.sub(topic, "g")
		s.Concurrency, s.Retry.MaxAttempts = 4, 2
		e.subscribe(p, s, l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
			if d.Type == "sleepy" && len(l.calls("g", d.ID)) <= times {
				return pubsub.Snooze(delay, errors.New("not yet"))
			}
			return nil
		}))
		l.mustPublish(p, topic, l.messages(30, keys)...)
		for _, m := range l.messages(10, keys) {
			m.Type = "sleepy"
			l.mustPublish(p, topic, m)
		}
		l.await("g")
		for _, s := range l.all() {
			calls := l.calls("g", s.msg.ID)
			for i, r := range calls {
				if r.attempt != 1 {
					e.Errorf("message %s was snoozed %d times, and comes with attempt %d", s.msg.ID, i, r.attempt)
				}
				if i > 0 && r.at.Sub(calls[i-1].at) < delay {
					e.Errorf("message %s was snoozed for %v, and came after %v", s.msg.ID, delay, r.at.Sub(calls[i-1].at))
				}
			}
			if s.msg.Type == "sleepy" && len(calls) != times+1 {
				e.Errorf("message %s was snoozed %d times, and delivered %d times", s.msg.ID, times, len(calls))
			}
		}
		l.verify()
	}
}

func pauses(e *env) {
	const pause = time.Second
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Concurrency, s.Retry.MaxAttempts = 1, 2 // with more, a handler that was begun already may start after the one that pauses
	var until atomic.Int64
	var times atomic.Int64
	c := e.subscribe(p, s, l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
		if time.Now().UnixNano() < until.Load() {
			e.Errorf("a handler starts %v before the pause is over", time.Until(time.Unix(0, until.Load())))
		}
		if d.Type == "pause" && times.Add(1) <= 3 {
			until.Store(time.Now().Add(pause).UnixNano())
			return pubsub.Pause(pause, errFails)
		}
		return nil
	}))
	l.mustPublish(p, topic, l.messages(30, 5)...)
	l.await("g")
	m := l.message("")
	m.Type = "pause"
	l.mustPublish(p, topic, m)
	if !e.until(pause/2, func() bool { st := c.State(); return st.Phase == pubsub.Paused && errors.Is(st.Reason, errFails) }) {
		e.Errorf("after a Pause the state is %v because of %v, want paused and the handler's error", c.State().Phase, c.State().Reason)
	}
	for range 5 { // the first of them may be fetched before the pause
		l.mustPublish(p, topic, l.messages(10, 5)...)
		time.Sleep(pause / 20)
	}
	l.await("g")
	for i, r := range l.calls("g", m.ID) {
		if r.attempt != 1 {
			e.Errorf("a message that was paused %d times comes with attempt %d", i, r.attempt)
		}
	}
	e.wantCalls(l, []pubsub.Message{m}, 4)
	l.verify()
}

func rules(e *env) {
	const slow, quick = 300 * time.Millisecond, 50 * time.Millisecond
	errSlow := errors.New("partner")
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.competing(topic, "g")
	s.Concurrency = 4
	s.Retry = pubsub.Policy{MaxAttempts: 2, Delays: []time.Duration{quick}}
	s.Rules = []pubsub.Rule{{
		Category: "partner", When: func(err error) bool { return errors.Is(err, errSlow) },
		Retry: pubsub.Policy{MaxAttempts: 4, Delays: []time.Duration{slow}},
	}}
	e.subscribe(p, s, l.handler(p, "g", onFails(func(_ context.Context, d *pubsub.Delivery) error {
		if d.ContentType == "partner" {
			return fmt.Errorf("calling them: %w", errSlow)
		}
		return errFails
	})))
	l.mustPublish(p, topic, l.messages(30, 0)...)
	var ruled, others []pubsub.Message
	for i, m := range l.messages(20, 0) {
		m.Type = "fails"
		if i%2 == 0 {
			m.ContentType = "partner"
			ruled = append(ruled, m)
		} else {
			others = append(others, m)
		}
		l.mustPublish(p, topic, m)
		l.excuse(m.ID)
	}
	for _, r := range e.wantDead(p, topic, "g", "max-attempts", 20) {
		if got := r.Msg.Headers.Get("omnibus-dlq-category"); got != r.Msg.ContentType {
			e.Errorf("the dead letter of %s has the category %q, want %q", r.Msg.ID, got, r.Msg.ContentType)
		}
	}
	e.wantCalls(l, ruled, 4)
	e.wantCalls(l, others, 2)
	for _, m := range ruled {
		calls := l.calls("g", m.ID)
		for i := 1; i < len(calls); i++ {
			if took := calls[i].at.Sub(calls[i-1].at); took < slow {
				e.Errorf("the rule's delay is %v, and %s came again after %v", slow, m.ID, took)
			}
		}
	}
	l.await("g")
	l.verify()
}

func panics(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Concurrency, s.Retry = 4, pubsub.Policy{MaxAttempts: 3, Delays: []time.Duration{20 * time.Millisecond}}
	e.subscribe(p, s, l.handler(p, "g", onFails(func(_ context.Context, d *pubsub.Delivery) error {
		if d.Key == "" || d.Attempt < 3 {
			panic("the handler of " + d.ID)
		}
		return nil
	})))
	l.mustPublish(p, topic, l.messages(30, 5)...)
	var dead, cured []pubsub.Message
	for _, m := range append(l.messages(10, 0), l.messages(10, 5)...) {
		m.Type = "fails"
		l.mustPublish(p, topic, m)
		if m.Key == "" {
			l.excuse(m.ID)
			dead = append(dead, m)
		} else {
			cured = append(cured, m)
		}
	}
	e.wantDead(p, topic, "g", "max-attempts", len(dead))
	l.mustPublish(p, topic, l.messages(30, 5)...)
	l.await("g")
	e.wantCalls(l, dead, 3)
	e.wantCalls(l, cured, 3)
	l.verify()
}

func hangs(e *env) {
	const timeout = 300 * time.Millisecond
	least := timeout
	if !virtual() {
		least /= 2 // the timeout counts from a moment before the handler has looked at its clock: on a busy machine that moment is long
	}
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Concurrency, s.HandlerTimeout = 4, timeout
	s.Retry = pubsub.Policy{MaxAttempts: 2, Delays: []time.Duration{20 * time.Millisecond}}
	e.subscribe(p, s, l.handler(p, "g", onFails(func(ctx context.Context, d *pubsub.Delivery) error {
		begin := time.Now()
		<-ctx.Done()
		took := time.Since(begin)
		if took < least || took > timeout+time.Second || !errors.Is(context.Cause(ctx), pubsub.ErrTimeout) {
			e.Errorf("the context of a handler with a timeout of %v ended after %v with %v", timeout, took, context.Cause(ctx))
		}
		return ctx.Err()
	})))
	msgs := e.failing(p, l, topic, 10, 5)
	e.wantDead(p, topic, "g", "hang", len(msgs))
	e.wantCalls(l, msgs, 2)
	l.await("g")
	l.verify()
}

func othersDoNotWait(e *env) {
	const bound, wait = time.Second, 10 * time.Minute
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Concurrency = 2
	failed := make(chan struct{})
	e.subscribe(p, s, l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
		if d.Type == "fails" && d.Attempt == 1 {
			close(failed)
			return pubsub.RetryAfter(wait, errFails)
		}
		return nil
	}))
	l.mustPublish(p, topic, l.messages(30, 5)...)
	l.await("g")
	m := l.message("waits")
	m.Type = "fails"
	l.mustPublish(p, topic, m)
	l.excuse(m.ID)
	if !e.closed(patience, failed) {
		e.Fatalf("the message that fails did not come")
	}
	since := time.Now()
	const rounds = 30
	for range rounds {
		if virtual() { // then all of the ten minutes
			time.Sleep((wait - time.Minute) / rounds)
		}
		begin := time.Now()
		l.mustPublish(p, topic, l.messages(5, 5)...)
		if !l.await("g") || time.Since(begin) > bound {
			e.Errorf("while one message waits, five of other keys took %v: %s", time.Since(begin), l.progress("g"))
			break
		}
	}
	if virtual() {
		e.until(time.Until(since.Add(wait+e.caps.RetryLate+bound)), func() bool { return len(l.calls("g", m.ID)) > 1 })
		calls := l.calls("g", m.ID)
		if took := calls[len(calls)-1].at.Sub(since); len(calls) != 2 || took < wait-bound {
			e.Errorf("a message that waits for %v was handled %d times, the last time after %v", wait, len(calls), took)
		}
	}
	l.verify()
}

func eachCopyIsStored(e *env) {
	const replays = 3
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Retry = pubsub.Policy{MaxAttempts: 2, Delays: []time.Duration{20 * time.Millisecond}}
	e.subscribe(p, s, l.handler(p, "g", onFails(fails)))
	msgs := e.failing(p, l, topic, 5, 0)
	e.wantDead(p, topic, "g", "max-attempts", len(msgs))
	for n := range replays {
		for _, m := range msgs {
			e.must(p.DeliverTo(e.Context(), topic, "g", m), "replay %s", m.ID)
		}
		e.wantDead(p, topic, "g", "max-attempts", (n+2)*len(msgs))
		e.wantCalls(l, msgs, 2*(n+2))
	}
	rep, err := dlq.Open(p.Broker, topic, "g").Replay(e.Context(), dlq.Filter{}, dlq.Replay{}) // all of them, and each fails again
	e.must(err, "replay")
	const lives = replays + 1
	if rep.Replayed != lives*len(msgs) {
		e.Errorf("%d of %d dead letters were replayed", rep.Replayed, lives*len(msgs))
	}
	e.wantDead(p, topic, "g", "max-attempts", 2*lives*len(msgs))
	e.wantCalls(l, msgs, 2*2*lives)
	l.await("g")
	l.verify()
}
