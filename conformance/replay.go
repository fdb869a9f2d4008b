package conformance

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

func replay() []Property {
	refused := func(e *env) {
		e.wantUnsupported(e.open().Seek(e.Context(), e.topic("a"), "g", pubsub.FromEarliest()), "Seek")
	}
	return []Property{
		{
			Name: "Replay/Earliest", Promises: []int{21}, Gate: keepsHistory(), run: replayEarliest, refused: refused,
			Doc: "A group that is moved to the earliest message gets everything again.",
		},
		{
			Name: "Replay/Time", Promises: []int{21}, Gate: keepsHistory(), run: replayTime, refused: refused,
			Doc: "A group that is moved to a time gets again what was published from then on, and nothing from before.",
		},
		{
			Name: "Replay/Position", Promises: []int{21}, Gate: keepsHistory(), run: replayPosition, refused: refused,
			Doc: "A group that is moved to a position gets that message and what follows again, and nothing from before.",
		},
		{
			Name: "Replay/OthersUntouched", Promises: []int{21}, Gate: keepsHistory(), run: othersUntouched, refused: refused,
			Doc: "Moving one group moves no other.",
		},
		{
			Name: "Replay/BrowseOldestFirst", Promises: []int{21}, Gate: keepsHistory().and(partitioned()), run: browseOldestFirst,
			Doc: "Browsing a topic shows its messages in the order in which they came, over all its partitions.",
		},
	}
}

// A past is a topic whose messages two groups have handled, in two halves with some time between them.
type past struct {
	e     *env
	topic string
	half  time.Time // between the halves
	at    []pubsub.Position
	l     *ledger
}

func (e *env) past() *past {
	e.Helper()
	h := &past{e: e, topic: e.topic("a"), l: e.ledger()}
	p := e.open()
	e.ensure(p, e.sub(h.topic, "g"), e.sub(h.topic, "other"))
	h.at = e.history(p, h.topic, h.l, 50)
	time.Sleep(clockStep)
	h.half = time.Now()
	time.Sleep(clockStep)
	h.l.mustPublish(p, h.topic, h.l.messages(50, 3)...)
	for _, g := range []string{"g", "other"} {
		e.subscribe(p, e.sub(h.topic, g), h.l.handler(p, g, nil))
	}
	h.l.await("g", "other")
	h.l.verify()
	e.must(p.Close(), "close")
	return h
}

// again moves the group, and lets both groups run: g is to get again what lies from the n-th message on, other nothing.
func (h *past) again(to pubsub.Start, n int) {
	e := h.e
	e.Helper()
	p := e.open()
	e.must(p.Seek(e.Context(), h.topic, "g", to), "seek")
	again, others := e.ledger(), e.ledger()
	for _, s := range h.l.all() {
		again.tell(again.note(s.msg), nil) // it is there, and to come again
	}
	again.starts("g", n)
	e.subscribe(p, e.sub(h.topic, "g"), again.handler(p, "g", nil))
	e.subscribe(p, e.sub(h.topic, "other"), others.handler(p, "other", nil))
	again.await("g")
	for _, m := range again.messages(10, 3) {
		others.note(m)
		again.mustPublish(p, h.topic, m)
		others.tell(others.byID[m.ID], nil)
	}
	again.await("g")
	others.await("other")
	again.verify()
	others.verify()
}

func replayEarliest(e *env) { e.past().again(pubsub.FromEarliest(), 0) }

func replayTime(e *env) {
	h := e.past()
	h.again(pubsub.FromTime(h.half), 50)
}

func replayPosition(e *env) {
	h := e.past()
	if h.at[20] == (pubsub.Position{}) {
		e.skip("the broker does not say where it puts messages")
	}
	h.again(pubsub.FromPosition(h.at[20]), 20)
}

func othersUntouched(e *env) {
	h := e.past()
	p := e.open()
	e.must(p.Seek(e.Context(), h.topic, "g", pubsub.FromEarliest()), "seek")
	l := e.ledger()
	var again atomic.Int64
	e.subscribe(p, e.sub(h.topic, "other"), func(ctx context.Context, d *pubsub.Delivery) error {
		if h.l.knows(d.ID) {
			again.Add(1)
			return nil
		}
		return l.handler(p, "other", nil)(ctx, d)
	})
	l.mustPublish(p, h.topic, l.messages(20, 3)...)
	l.await("other")
	if n := again.Load(); n > 0 {
		e.Errorf("one group was moved to the beginning, and another one got %d messages again", n)
	}
	l.verify()
}
