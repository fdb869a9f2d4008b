package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Properties of dead letters that are sent again.

// replayHeaders begins the headers that a replay adds.
const replayHeaders = "omnibus-replay"

// A reviver fails the messages of failing until their replays come, and keeps what came then.
type reviver struct {
	e    *env
	mu   sync.Mutex
	came []pubsub.Message
}

func (r *reviver) handle(_ context.Context, d *pubsub.Delivery) error {
	if d.Headers.Get("omnibus-replays") == "" {
		return pubsub.Permanent(errFails)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.came = append(r.came, d.Message.Clone())
	return nil
}

func (r *reviver) all() []pubsub.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.came)
}

// await waits until n different messages came again, and a little longer for those that come twice.
func (r *reviver) await(n int) (times map[string]int) {
	count := func() map[string]int {
		times := map[string]int{}
		for _, m := range r.all() {
			times[m.ID]++
		}
		return times
	}
	r.e.until(patience, func() bool { times = count(); return len(times) >= n })
	time.Sleep(500 * time.Millisecond)
	return count()
}

func replayRestores(e *env) {
	const keys = 4
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	back := &reviver{e: e}
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", onFails(back.handle)))
	var others atomic.Int64
	e.subscribe(p, e.sub(topic, "other"), func(_ context.Context, d *pubsub.Delivery) error {
		if d.Type == "fails" {
			others.Add(1)
		}
		return nil
	})
	l.mustPublish(p, topic, l.messages(30, keys)...)
	var order []string
	want := map[string]pubsub.Message{}
	texts := awkward()
	for i := range 5 * len(texts) {
		s := texts[i%len(texts)]
		m := l.message(fmt.Sprintf("key-%d", i%keys))
		m.Type, m.ContentType, m.Payload = "fails", s, [][]byte{[]byte(s), nil, {}}[i%3]
		m.Time = time.Unix(1_000_000_000, 0).UTC()
		m.Headers = pubsub.Headers{{Name: "a", Value: s}, {Name: "n", Value: "7", Kind: pubsub.HeaderInt}, {Name: "a", Value: ""}}
		want[m.ID] = m
		order = append(order, m.ID)
		l.mustPublish(p, topic, m)
		l.excuse(m.ID)
	}
	e.wantDead(p, topic, "g", "permanent", len(want))
	l.await("g")
	e.until(patience, func() bool { return others.Load() >= int64(len(want)) })
	rep, err := dlq.Open(p.Broker, topic, "g").Replay(e.Context(), dlq.Filter{}, dlq.Replay{})
	e.must(err, "replay")
	if rep.Replayed != len(want) || rep.Failed > 0 {
		e.Errorf("%d of %d dead letters were replayed, %d failed", rep.Replayed, len(want), rep.Failed)
	}
	times := back.await(len(want))
	for id := range want {
		if times[id] != 1 {
			e.Errorf("%s was replayed, and came %d times", id, times[id])
		}
	}
	last := map[string]int{}
	for _, m := range back.all() {
		at := slices.Index(order, m.ID)
		if at < last[m.Key] {
			e.Errorf("the replay of %s came after one of its key that was published later", m.ID)
		}
		last[m.Key] = at
		m.Headers = slices.DeleteFunc(m.Headers, func(h pubsub.Header) bool { return strings.HasPrefix(h.Name, replayHeaders) })
		e.wantSame(m, want[m.ID])
	}
	if n := others.Load(); n != int64(len(want)) {
		e.Errorf("the other group got %d messages, %d were published: a replay is for the group that failed", n, len(want))
	}
	l.verify()
}

func replayResumes(e *env) {
	const n, kills, window = 400, 3, 256
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	back := &reviver{e: e}
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", onFails(back.handle)))
	msgs := e.failing(p, l, topic, n, 10)
	bound := kills * window
	if e.caps.Dedup > 0 {
		bound = 0 // each is sent again with its token
	}
	l.allow("g", bound)
	e.wantDead(p, topic, "g", "permanent", len(msgs))
	var journal bytes.Buffer
	for life := range kills + 1 {
		q := e.openWith(&pubsub.Options{DrainTimeout: time.Second}) // nobody answers one that is killed
		ctx, stop := context.WithCancel(e.Context())
		if life < kills {
			e.killAt(q, 40+e.rng.below(60), stop)
		}
		queue := dlq.Open(q.Broker, topic, "g")
		var plan *dlq.Plan
		var err error
		if life == 0 {
			plan, err = queue.Plan(ctx, dlq.Filter{}, dlq.Replay{Journal: &journal})
		} else {
			plan, err = queue.Resume(ctx, bytes.NewReader(journal.Bytes()), dlq.Replay{Journal: &journal})
		}
		e.must(err, "plan in life %d", life)
		rep, err := plan.Run(ctx)
		if life < kills && err == nil {
			e.Fatalf(setupPrefix+"life %d was not killed: %+v", life, rep)
		}
		if life == kills {
			e.must(err, "replay in the last life")
			if rep.Replayed != len(msgs) {
				e.Errorf("%d of %d dead letters were replayed", rep.Replayed, len(msgs))
			}
		}
		stop()
	}
	times, duplicates := back.await(len(msgs)), 0
	for _, m := range msgs {
		if times[m.ID] == 0 {
			e.Errorf("the replay of %s was confirmed, and did not come", m.ID)
		}
		duplicates += max(times[m.ID]-1, 0)
	}
	if duplicates > bound {
		e.Errorf("%d replays came twice after %d kills, at most %d may", duplicates, kills, bound)
	}
}

// killAt kills a process when it has sent so many messages to groups alone: the last of them are stored, and it never knows.
func (e *env) killAt(q *process, at int, stop context.CancelFunc) {
	dying := make(chan struct{})
	var sent atomic.Int64
	q.link.faults(func(o pubsub.Out) action {
		if o.To.Kind != pubsub.PlaceRetry {
			return action{}
		}
		switch n := sent.Add(1); {
		case n < int64(at):
			return action{}
		case n == int64(at)+5:
			close(dying)
		}
		return action{kind: noAnswer}
	})
	go func() {
		select {
		case <-dying:
			q.kill()
		case <-e.Context().Done():
		}
		stop()
	}()
}

// replayTakesTurns lets one process replay slowly, while another one tries.
func replayTakesTurns(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	back := &reviver{e: e}
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", onFails(back.handle)))
	msgs := e.failing(p, l, topic, 40, 4)
	e.wantDead(p, topic, "g", "permanent", len(msgs))
	turn := e.topic("turns")
	first, second := e.openWith(&pubsub.Options{DrainTimeout: time.Second}), e.open() // nobody answers one that is killed
	ctx, stop := context.WithCancel(e.Context())
	ended := make(chan struct{})
	var done atomic.Int64
	var journal bytes.Buffer
	plan, err := dlq.Open(first.Broker, topic, "g").Plan(ctx, dlq.Filter{}, dlq.Replay{
		Turn: turn, Rate: 2, Journal: &journal, Progress: func(n, _ int) { done.Store(int64(n)) },
	})
	e.must(err, "plan")
	go func() {
		defer close(ended)
		_, _ = plan.Run(ctx) // it ends as its process does
	}()
	e.Cleanup(func() { stop(); <-ended })
	if !e.until(patience, func() bool { return done.Load() > 0 }) {
		e.Errorf("a replay that takes turns with nobody has sent nothing")
	}
	rep, err := dlq.Open(second.Broker, topic, "g").Replay(e.Context(), dlq.Filter{}, dlq.Replay{Turn: turn})
	if !errors.Is(err, pubsub.ErrConflict) {
		e.Errorf("replaying what another process replays returned %v, want a conflict", err)
	}
	if rep.Replayed > 0 {
		e.Errorf("%d messages were replayed in a second process at once", rep.Replayed)
	}
	first.kill()
	stop()
	<-ended
	var again dlq.Report
	next, err := dlq.Open(second.Broker, topic, "g").Resume(e.Context(), &journal, dlq.Replay{Turn: turn})
	e.must(err, "resume")
	if !e.until(patience, func() bool { again, err = next.Run(e.Context()); return !errors.Is(err, pubsub.ErrConflict) }) || err != nil {
		e.Errorf("the process that replayed is gone, and another one, %v later, gets %v", patience, err)
	}
	if again.Replayed != len(msgs) {
		e.Errorf("%d of %d dead letters were replayed", again.Replayed, len(msgs))
	}
	back.await(len(msgs))
	l.verify()
}
