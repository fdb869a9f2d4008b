package redisstreams

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A Broadcast has no group at the server: it reads on from the entry that was the last one when it began. What it is to deliver again it looks up by its id.

// A tail is what a Broadcast reads of a partition, in one session after the other.
type tail struct {
	member string
	lane   int32
}

// begin finds the entry behind which the leg reads: the last one, or the one up to which all was settled when the session before broke.
func (ln *leg) begin(ctx context.Context) error {
	r, err := ln.s.d.ask(ctx, "XINFO", "STREAM", ln.parts[0].key)
	if err != nil {
		return err
	}
	id, ok := parseID([]byte(r.table()["last-generated-id"]))
	if !ok {
		return errGarbled
	}
	if r.err != nil {
		return r.err
	}
	d := ln.s.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if at, known := d.tails[ln.tail()]; known && at.less(id) { // else the stream was made anew
		id = at
	}
	ln.next, d.tails[ln.tail()] = id, id
	return nil
}

func (ln *leg) tail() tail { return tail{ln.s.spec.Member, ln.lane} }

// stand remembers where a Broadcast stood whose session has ended, and forgets that if none follows.
func (s *source) stand(broken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ln := range s.legs {
		at := ln.next
		for f := s.oldest; f != nil; f = f.next {
			if f.leg == ln && !at.less(f.id) {
				at = f.id.before()
			}
		}
		for _, a := range ln.retries {
			if !at.less(a.id) {
				at = a.id.before()
			}
		}
		s.d.mu.Lock()
		if !broken {
			delete(s.d.tails, ln.tail())
		} else if s.d.tails[ln.tail()].less(at) {
			s.d.tails[ln.tail()] = at
		}
		s.d.mu.Unlock()
	}
}

// readLive reads once: what is to be delivered again, or what is new.
func (ln *leg) readLive(n int) (err error) {
	s, p, ctx := ln.s, &ln.parts[0], context.Background()
	now := time.Now()
	var due []again
	defer func() {
		if err != nil {
			s.mu.Lock()
			ln.retries = append(ln.retries, due...) // of which the next session is to know
			s.mu.Unlock()
		}
	}()
	s.mu.Lock()
	block := readTurn
	for i := 0; i < len(ln.retries) && len(due) < n; {
		if a := ln.retries[i]; a.at.After(now) {
			block = min(block, max(a.at.Sub(now), time.Millisecond))
			i++
		} else {
			due = append(due, a)
			ln.retries = append(ln.retries[:i], ln.retries[i+1:]...)
		}
	}
	gen := ln.gen
	s.mu.Unlock()
	var all []*flight
	for _, a := range due {
		cmd := redis.NewRawCmd(ctx, "XRANGE", p.key, a.id.String(), a.id.String())
		if err := ln.wire.Process(ctx, cmd); err != nil {
			return err
		}
		r, err := rawReply(cmd.Val())
		if err != nil {
			return err
		}
		ln.fields = r.entries(ln.fields, func(id entryID, fields [][]byte) {
			f := ln.flight(p, id, fields, 1, now)
			f.deliveries, f.failed = a.deliveries+1, a.failed
			all = append(all, f)
		})
		if r.err != nil {
			return r.err
		}
	}
	if len(all) == 0 {
		cmd := redis.NewRawCmd(ctx, "XREAD", "COUNT", n, "BLOCK", block.Milliseconds(), "STREAMS", p.key, ln.next.String())
		if err := ln.wire.Process(ctx, cmd); err != nil {
			return err
		}
		var err error
		if all, err = ln.streams(cmd.Val(), ln.parts, time.Time{}); err != nil {
			return err
		}
		if len(all) > 0 {
			ln.next = all[len(all)-1].id
		}
	}
	return ln.arrive(gen, all)
}

// settleLive settles a message of a Broadcast. mu is held.
func (ln *leg) settleLive(f *flight, st *pubsub.Settlement, now time.Time) {
	if st.As != pubsub.SettleAck {
		a := again{id: f.id, at: now.Add(max(st.Delay, 0)), failed: st.Failed, deliveries: f.deliveries}
		if st.As == pubsub.SettleRelease || st.Failed == f.failed {
			a.deliveries--
		}
		ln.retries = append(ln.retries, a)
	}
	ln.s.drop(f)
	wake(ln.kick)
}
