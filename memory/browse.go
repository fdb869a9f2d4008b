package memory

import (
	"context"
	"iter"
	"math"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

const browsePage = 256 // records that are read under one lock

// A cursor is where a browse stands in one log.
type cursor struct {
	log      *partition
	off, end int64
}

// skip moves to the next entry that is there and lies in the place of that group, and says when it came.
func (c *cursor) skip(only *group) int64 {
	for ; c.off < c.end; c.off++ {
		if e := c.log.at(c.off); e != nil && e.msg != nil && e.only == only {
			return e.at
		}
	}
	return math.MaxInt64
}

// Browse implements pubsub.Browser.
func (d *driver) Browse(ctx context.Context, p pubsub.Place, from pubsub.Position) iter.Seq2[pubsub.Record, error] {
	return func(yield func(pubsub.Record, error) bool) {
		if err := d.enter(ctx); err != nil {
			yield(pubsub.Record{}, err)
			return
		}
		cursors, only, err := d.s.cursors(p, from)
		for err == nil {
			page := nextPage(cursors, only)
			d.s.mu.Unlock()
			for _, r := range page {
				if !yield(r, nil) {
					return
				}
			}
			if len(page) < browsePage {
				return
			}
			if err := d.enter(ctx); err != nil {
				yield(pubsub.Record{}, err)
				return
			}
		}
		d.s.mu.Unlock()
		yield(pubsub.Record{}, err)
	}
}

// Purge implements pubsub.Purger.
func (d *driver) Purge(ctx context.Context, p pubsub.Place, upTo pubsub.Position) error {
	if err := d.enter(ctx); err != nil {
		return err
	}
	defer d.s.mu.Unlock()
	at := d.s.private[p]
	kind, last, _, index := upTo.Parts()
	if at == nil || kind != positionKind || int(index) >= len(at.logs) {
		return says(pubsub.ErrInvalid, true, "the dead letters of group %q of %q have no position %v", p.Group, p.Topic, upTo)
	}
	log := at.logs[index]
	for off := log.first; off <= last && off < log.end; off++ {
		if e := log.at(off); e != nil && e.msg != nil {
			e.needs = 0
			log.drop(off)
		}
	}
	return nil
}

// cursors stand where a browse begins; only is whose messages it shows, nil = everybody's. mu is held.
func (s *Server) cursors(p pubsub.Place, from pubsub.Position) (cs []*cursor, only *group, err error) {
	var logs []*partition
	t := s.topics[p.Topic]
	switch {
	case p.Kind == pubsub.PlaceMain && t == nil:
		return nil, nil, says(pubsub.ErrNotFound, true, "there is no topic %q", p.Topic)
	case p.Kind == pubsub.PlaceMain:
		logs = t.logs
	case p.Kind == pubsub.PlaceRetry && p.Tier == 0:
		if only = s.groups[pubsub.Place{Topic: p.Topic, Group: p.Group}]; only != nil {
			logs = only.own.logs
		}
	case s.private[p] != nil:
		logs = s.private[p].logs
	}
	var since int64
	kind, low, _, index := from.Parts()
	for _, log := range logs {
		log.retain(time.Now())
		c := &cursor{log: log, off: log.first, end: log.end}
		if kind == positionKind && index == log.index {
			c.off = min(max(low, log.first), log.end)
			if e := log.at(min(c.off, log.end-1)); c.off < log.end && e != nil {
				since = e.at
			}
		}
		cs = append(cs, c)
	}
	if since > 0 { // the others begin with what came after it
		for _, c := range cs {
			c.off = max(c.off, c.log.since(since))
		}
	}
	return cs, only, nil
}

// nextPage reads on, the oldest first. mu is held.
func nextPage(cursors []*cursor, only *group) (page []pubsub.Record) {
	for len(page) < browsePage {
		var c *cursor
		oldest := int64(math.MaxInt64)
		for _, x := range cursors {
			if at := x.skip(only); at < oldest {
				c, oldest = x, at
			}
		}
		if c == nil {
			break
		}
		page = append(page, pubsub.Record{Msg: c.log.at(c.off).msg, Topic: c.log.topic, Pos: c.log.position(c.off)})
		c.off++
	}
	return page
}
