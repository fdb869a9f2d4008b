package redisstreams

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/omnibus-go/omnibus/internal/drivers"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Lag implements pubsub.Lagger: what no member has got, and what is not settled, what waits included. The server does not know it of a group that began
// in the middle and has not come to the end yet, and where entries were deleted.
func (d *driver) Lag(ctx context.Context, topic, group string) (lag pubsub.Lag, err error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	t, err := d.lookup(ctx, topic)
	if err == nil && !t.there {
		err = says(pubsub.ErrNotFound, "there is no topic %q", topic)
	}
	if err != nil {
		return lag, err
	}
	lag.Kind = pubsub.LagExact
	p := pubsub.Place{Topic: topic, Group: group}
	retry := p
	retry.Kind = pubsub.PlaceRetry
	for lane := range int32(t.partitions) {
		for _, key := range []string{placeKey(p, lane), placeKey(retry, lane)} {
			n, known, err := d.behind(ctx, key, group)
			if err != nil {
				return lag, err
			}
			if lag.Messages += n; !known {
				lag.Kind = pubsub.LagUnknown
			}
		}
	}
	if lag.Kind == pubsub.LagUnknown {
		lag.Messages = 0
	}
	return lag, nil
}

// behind is how many entries of a stream a group has not settled.
func (d *driver) behind(ctx context.Context, key, group string) (n int64, known bool, err error) {
	r, err := d.ask(ctx, "XINFO", "GROUPS", key)
	if err != nil {
		return 0, false, err
	}
	found := false
	r.each(func() {
		g := r.table()
		if g["name"] != group {
			return
		}
		found = true
		known = g["lag"] != ""
		n = number(g["lag"]) + number(g["pending"])
	})
	if r.err == nil && !found {
		return 0, false, says(pubsub.ErrNotFound, "there is no group %q of %q", group, key)
	}
	return n, known, r.err
}

// Seek implements pubsub.Seeker. What the group had pending is dropped with its place. After an error each partition stands where it stood or where it was
// to go, and Seek can be called again.
func (d *driver) Seek(ctx context.Context, topic, group string, to pubsub.Start) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	if _, err := d.Lag(ctx, topic, group); err != nil { // it is there
		return err
	}
	p := pubsub.Place{Topic: topic, Group: group}
	r, err := d.run(ctx, membersScript, []string{groupKey("members", p, 0)}, "", 0)
	if err != nil {
		return err
	}
	if r.list() > 0 {
		return says(pubsub.ErrConflict, "group %q of %q has members", group, topic)
	}
	t, err := d.lookup(ctx, topic)
	if err != nil {
		return err
	}
	for lane := range int32(t.partitions) {
		if _, err := d.run(ctx, seekScript, []string{streamKey(topic, lane), groupKey("due", p, lane)}, group, startID(to, lane)); err != nil {
			return err
		}
	}
	return nil
}

// browsePage is how many entries are read at a time.
const browsePage = 128

// A page is a partition that is browsed.
type page struct {
	lane    int32
	key     string
	from    entryID
	records []pubsub.Record
	ids     []entryID
	end     entryID // what came later is not shown
	over    bool
}

// Browse implements pubsub.Browser: all partitions together, in the order of the ids, which are times.
func (d *driver) Browse(ctx context.Context, p pubsub.Place, from pubsub.Position) iter.Seq2[pubsub.Record, error] {
	return drivers.Walk(func(yield func(pubsub.Record) bool) error { return d.browse(ctx, p, from, yield) })
}

func (d *driver) browse(ctx context.Context, p pubsub.Place, from pubsub.Position, yield func(pubsub.Record) bool) error {
	t, err := d.lookup(ctx, p.Topic)
	switch {
	case err != nil:
		return err
	case !t.there && p.Kind == pubsub.PlaceMain:
		return says(pubsub.ErrNotFound, "there is no topic %q", p.Topic)
	case !spread(p.Kind):
		t.partitions = 1
	}
	end := entryID{ms: uint64(time.Now().Add(time.Minute).UnixMilli())} // clocks differ; it is only not to go on for ever
	if p.Kind == pubsub.PlaceDead && t.partitions > 1 {
		if end, err = d.past(ctx, p, t.partitions); err != nil {
			return err
		}
	}
	pages := make([]*page, t.partitions)
	for lane := range pages {
		pages[lane] = &page{lane: int32(lane), key: placeKey(p, int32(lane)), from: idAt(from, int32(lane), p.Kind), end: end}
	}
	for {
		var first *page
		for _, pg := range pages {
			if len(pg.records) == 0 && !pg.over {
				if err := d.turnPage(ctx, p, pg); err != nil {
					return err
				}
			}
			if len(pg.records) > 0 && (first == nil || pg.ids[0].less(first.ids[0])) {
				first = pg
			}
		}
		if first == nil {
			return ctx.Err()
		}
		r := first.records[0]
		first.records, first.ids = first.records[1:], first.ids[1:]
		if !yield(r) {
			return nil
		}
	}
}

// longestSkew is for how long a browse waits for the clocks of nodes that are behind those of others.
const longestSkew = time.Second

// past is the last id that no partition of a place can get any more. A purge cuts all partitions at one id, so a browse that it may follow shows nothing
// behind this: in a partition that it has read something older than what it shows of another could be added. What was there before it began is shown, unless the
// clocks of the nodes are further apart than longestSkew.
func (d *driver) past(ctx context.Context, p pubsub.Place, partitions int) (entryID, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	first, last, err := d.clocks(ctx, p, partitions)
	if err != nil {
		return entryID{}, err
	}
	timer := time.NewTimer(min(time.Duration(last-first+1)*time.Millisecond, longestSkew))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return entryID{}, ctx.Err()
	}
	if first, _, err = d.clocks(ctx, p, partitions); err != nil {
		return entryID{}, err
	}
	return entryID{uint64(first), 0}.before(), nil
}

// clocks are the earliest and the latest time, in milliseconds, at the servers that have the partitions of a place.
func (d *driver) clocks(ctx context.Context, p pubsub.Place, partitions int) (first, last int64, err error) {
	for lane := range int32(partitions) {
		r, err := d.run(ctx, clockScript, []string{placeKey(p, lane)})
		if err != nil {
			return 0, 0, err
		}
		ms := r.number()
		if r.err != nil {
			return 0, 0, r.err
		}
		if lane == 0 {
			first, last = ms, ms
		}
		first, last = min(first, ms), max(last, ms)
	}
	return first, last, nil
}

// Purge implements pubsub.Purger: in all partitions, what a browse shows before that entry, and the entry. After an error it can be called again.
func (d *driver) Purge(ctx context.Context, p pubsub.Place, upTo pubsub.Position) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	t, err := d.lookup(ctx, p.Topic)
	if err != nil {
		return err
	}
	kind, ms, seq, at := upTo.Parts()
	last := at >> placeBits
	if kind != positionKind || at&(1<<placeBits-1) != int32(p.Kind) || int(last) >= t.partitions {
		return says(pubsub.ErrInvalid, "the dead letters of group %q of %q have no position %v", p.Group, p.Topic, upTo)
	}
	for lane := range int32(t.partitions) {
		from := entryID{uint64(ms), uint64(seq)} // is kept
		if lane <= last {                        // of two with one id a browse shows the lower partition first
			from = from.after()
		}
		if _, err := d.ask(ctx, "XTRIM", placeKey(p, lane), "MINID", "=", from.String()); err != nil {
			return err
		}
	}
	return nil
}

// turnPage reads on.
func (d *driver) turnPage(ctx context.Context, p pubsub.Place, pg *page) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	r, err := d.ask(ctx, "XRANGE", pg.key, pg.from.String(), pg.end.String(), "COUNT", browsePage)
	if err != nil {
		return err
	}
	pg.records, pg.ids = pg.records[:0], pg.ids[:0]
	var dec decoder
	r.entries(nil, func(id entryID, fields [][]byte) {
		m := new(pubsub.Message)
		bad := dec.decode(m, fields)
		pg.ids = append(pg.ids, id)
		pg.records = append(pg.records, pubsub.Record{Msg: m, Topic: p.Topic, Pos: id.position(pg.lane, p.Kind), Bad: bad})
	})
	if len(pg.ids) > 0 {
		last := pg.ids[len(pg.ids)-1]
		pg.from = last.after()
	}
	pg.over = len(pg.ids) < browsePage
	pg.records, pg.ids = slices.Clip(pg.records), slices.Clip(pg.ids)
	return r.err
}
