package redisstreams

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/omnibus-go/omnibus/internal/drivers"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A waitingRoom is a stream with the set of its entries that wait.
type waitingRoom struct {
	stream, due string
	kind        pubsub.PlaceKind
	lane        int32
}

// waitingRoomOf is the one in which retries from a place wait, see newLeg.
func waitingRoomOf(topic, group string, kind pubsub.PlaceKind, lane int32) waitingRoom {
	p := pubsub.Place{Topic: topic, Group: group, Kind: kind}
	w := waitingRoom{stream: placeKey(p, lane), due: groupKey("due", p, lane), kind: kind, lane: lane}
	switch kind {
	case pubsub.PlaceRetry:
		w.due += "__retry"
	case pubsub.PlaceQuarantine:
		w.due += "__own"
	}
	return w
}

// waitingPage is how many entries are read at a time.
const waitingPage = 128

// Waiting implements pubsub.Waiter: partition by partition, in each the soonest first. What fails again while it is listed is shown again, if its time lies behind
// that of what was shown.
func (d *driver) Waiting(ctx context.Context, topic, group string) iter.Seq2[pubsub.Waiting, error] {
	return drivers.Walk(func(yield func(pubsub.Waiting) bool) error {
		if _, err := d.Lag(ctx, topic, group); err != nil { // it is there
			return err
		}
		t, err := d.lookup(ctx, topic)
		if err != nil {
			return err
		}
		rooms := []waitingRoom{waitingRoomOf(topic, group, pubsub.PlaceQuarantine, 0)}
		for lane := range int32(t.partitions) {
			rooms = append(rooms, waitingRoomOf(topic, group, pubsub.PlaceMain, lane), waitingRoomOf(topic, group, pubsub.PlaceRetry, lane))
		}
		for _, w := range rooms {
			if more, err := d.waitingIn(ctx, w, topic, group, yield); err != nil || !more {
				return err
			}
		}
		return nil
	})
}

// waitingIn reads one of them, and says whether yield wants more.
func (d *driver) waitingIn(ctx context.Context, w waitingRoom, topic, group string, yield func(pubsub.Waiting) bool) (bool, error) {
	at, last := int64(0), ""
	for {
		page, err := d.waitingPage(ctx, w, topic, group, &at, &last)
		if err != nil || last == "" {
			return err == nil, err
		}
		for i := range page {
			if !yield(page[i]) {
				return false, nil
			}
		}
	}
}

// waitingPage reads what is due behind an entry and its time, and where it ends; there is nothing more once last is "".
func (d *driver) waitingPage(ctx context.Context, w waitingRoom, topic, group string, at *int64, last *string) (page []pubsub.Waiting, err error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	r, err := d.run(ctx, waitingScript, []string{w.stream, w.due}, group, *at, *last, waitingPage)
	if err != nil {
		return nil, err
	}
	var dec decoder
	var ids []entryID
	r.list()
	r.entries(nil, func(id entryID, fields [][]byte) {
		m := new(pubsub.Message)
		bad := dec.decode(m, fields)
		ids = append(ids, id)
		page = append(page, pubsub.Waiting{Record: pubsub.Record{Msg: m, Topic: topic, Pos: id.position(w.lane, w.kind), Bad: bad,
			Token: pubsub.Token{Lane: w.lane, Gen: uint32(w.kind), A: id.ms, B: id.seq}}})
	})
	i := 0
	for range max(r.list(), 0) / 3 {
		id, _ := parseID(r.text())
		due, count := r.number(), r.number()
		if i < len(ids) && ids[i] == id {
			page[i].Due = time.UnixMilli(due)
			page[i].Record.Deliveries, page[i].Record.Failed = int32(count%failedUnit), int32(count/failedUnit)
			i++
		}
	}
	*at, *last = r.number(), string(r.text())
	return page[:i], r.err
}

// Reschedule implements pubsub.Rescheduler.
func (d *driver) Reschedule(ctx context.Context, topic, group string, w pubsub.Waiting, in time.Duration) (pubsub.Waiting, error) {
	at, err := d.changeWaiting(ctx, topic, group, &w, "due", millis(max(in, 0)))
	if err == nil {
		w.Due = time.UnixMilli(at)
	}
	return w, err
}

// Withdraw implements pubsub.Rescheduler.
func (d *driver) Withdraw(ctx context.Context, topic, group string, w pubsub.Waiting) error {
	what := "ack"
	if pubsub.PlaceKind(w.Record.Token.Gen) != pubsub.PlaceMain {
		what = "del"
	}
	_, err := d.changeWaiting(ctx, topic, group, &w, what, 0)
	return err
}

// changeWaiting does something about an entry that waits as w says, and returns when it is due.
func (d *driver) changeWaiting(ctx context.Context, topic, group string, w *pubsub.Waiting, what string, delay int64) (int64, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	t := w.Record.Token
	room := waitingRoomOf(topic, group, pubsub.PlaceKind(t.Gen), t.Lane)
	id := fmt.Sprintf("%d-%020d", t.A, t.B) // see dueID
	r, err := d.run(ctx, changeWaitingScript, []string{room.stream, room.due}, group, id, w.Due.UnixMilli(), what, delay)
	if err != nil {
		return 0, err
	}
	at := r.number()
	if r.err == nil && at < 0 {
		return 0, says(pubsub.ErrNotFound, "message %q of group %q of %q waits no more for its retry at %v", w.Record.Msg.ID, group, topic, w.Due)
	}
	return at, r.err
}
