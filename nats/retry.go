package nats

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A message that waits for its retry is moved to its group's private place: the server counts deliveries, not failures, and of a message that
// it delays itself it would tell the next member nothing. The copy says how often the group has failed and when it is due. Whoever gets
// it earlier gives it back until then; the server keeps that, across a restart too.

// A copyOf is a message on its way there.
type copyOf struct {
	f      *flight
	due    time.Time
	failed int32
	at     int // in the caller's list
}

// id is the same for two copies of one message after the same failure. Where a process dies between a copy and its ack the message comes
// again; without it each of the two would have all the attempts that are left. Consumers that a Seek has made anew begin anew.
func (c *copyOf) id(subject string) string {
	from := c.f.leg
	return fmt.Sprintf("%s %s %d %d %d", subject, from.stream, from.made.UnixNano(), c.f.info.seq, c.failed)
}

// nakIn is the body that lets a message come again after d.
func nakIn(d time.Duration) []byte { return []byte("-NAK " + d.String()) }

// dueIn tells how long a message has to wait.
func dueIn(h client.Header, now time.Time) time.Duration {
	if v := h[hdrDue]; len(v) > 0 {
		if due, err := time.Parse(time.RFC3339Nano, v[0]); err == nil {
			return due.Sub(now)
		}
	}
	return 0
}

// readRetry reads what move has added.
func readRetry(h client.Header, r *pubsub.Record) {
	if n, err := strconv.ParseInt(h.Get(hdrFailed), 10, 32); err == nil && n > 0 {
		r.Failed = int32(n)
	}
	if topic := h.Get(hdrTopic); topic != "" {
		r.Topic = topic
	}
	if h.Get(hdrDue) != "" && r.Deliveries > 1 {
		r.Deliveries-- // the one that came too early
	}
	if store, seq, ok := strings.Cut(h.Get(hdrSource), "."); ok {
		a, err := strconv.ParseInt(seq, 10, 64)
		c, err2 := strconv.ParseInt(store, 10, 32)
		if err == nil && err2 == nil {
			r.Pos = pubsub.NewPosition(positionKind, a, 0, int32(c))
		}
	}
}

// move stores the copies, then acks the originals. What cannot be stored comes again all the same, its failure uncounted. A copy for the
// quarantine goes back to it: where a delivery that no process survives is the proof, a hand-back must not count as one.
func (s *source) move(ctx context.Context, list []copyOf, errs []error) error {
	var mu sync.Mutex
	fates := make([]pubsub.Result, 0, len(list))
	all := make(chan struct{})
	p, err := s.d.newProducer(s.link, pubsub.ProducerSpec{MaxPending: len(list)}, func(rs []pubsub.Result) {
		mu.Lock()
		defer mu.Unlock()
		if fates = append(fates, rs...); len(fates) == len(list) {
			close(all)
		}
	})
	if err != nil {
		return err
	}
	to := s.spec.From
	if to.Kind == pubsub.PlaceMain {
		to.Kind = pubsub.PlaceRetry
	}
	for i := range list {
		c := &list[i]
		var r pubsub.Record
		s.record(&r, c.f)
		o := pubsub.Out{Seq: uint64(i), To: to, Msg: r.Msg}
		m, err := p.message(ctx, &o)
		if err == nil && !c.due.IsZero() {
			_, at, _, store := r.Pos.Parts()
			m.Header.Set(hdrFailed, strconv.Itoa(int(c.failed)))
			m.Header.Set(hdrDue, c.due.UTC().Format(time.RFC3339Nano))
			m.Header.Set(hdrTopic, r.Topic)
			m.Header.Set(hdrSource, strconv.Itoa(int(store))+"."+strconv.FormatInt(at, 10))
			m.Header.Set(client.MsgIdHdr, c.id(m.Subject))
		}
		if err == nil {
			err = p.publish(&o, m)
		}
		if err != nil {
			p.report([]pubsub.Result{{Seq: o.Seq, Fate: pubsub.FateRefused, Err: err}})
		}
	}
	select {
	case <-all:
	case <-ctx.Done():
	}
	closed := p.Close(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range fates {
		c := &list[r.Seq]
		if r.Fate != pubsub.FateAccepted {
			errs[c.at] = r.Err
		}
		if c.f.state == flightDone {
			continue // its lease ended meanwhile, or its lane was lost
		}
		if r.Fate == pubsub.FateAccepted {
			err = s.ack(c.f)
		} else {
			err = s.nc.Publish(c.f.msg.Reply, nakIn(max(time.Until(c.due), time.Second)))
		}
		if err != nil {
			return err
		}
		s.drop(c.f)
	}
	s.ask()
	return closed
}
