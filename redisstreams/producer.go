package redisstreams

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/internal/drivers"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A producer sends each run as one pipeline to each server that is concerned, and waits for the answers: of two pipelines that are under way the second
// could be carried out first.
type producer struct {
	d      *driver
	spec   pubsub.ProducerSpec
	report func([]pubsub.Result)
	wires  map[string]*wire // by the address of the server
	routes map[string]*wire // by stream
	turn   uint32           // of messages without a key

	args    []any // of a run; what is written is not needed any more
	sent    []sending
	results []pubsub.Result
}

// A sending is a message on its way.
type sending struct {
	seq  uint64
	cmd  *redis.StringCmd
	wire *wire
	to   string // the topic
	lane int32
	kind pubsub.PlaceKind
	late bool // it is stored for later, and has no position yet
}

// waitTurn is how long the server may take at a time to say that too few replicas have what it has.
const waitTurn = time.Second

// OpenProducer implements pubsub.Driver.
func (d *driver) OpenProducer(ctx context.Context, spec pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	p := &producer{d: d, spec: spec, report: report, wires: map[string]*wire{}, routes: map[string]*wire{}}
	if err := d.add(p); err != nil {
		return nil, err
	}
	if !d.cfg.Cluster { // in a cluster it depends on the topic
		if _, err := p.route(ctx, ""); err != nil {
			d.remove(p)
			return nil, err
		}
	}
	return p, nil
}

// route finds the connection for a stream.
func (p *producer) route(ctx context.Context, key string) (*wire, error) {
	if w := p.routes[key]; w != nil {
		return w, nil
	}
	addr, err := "", error(nil)
	if p.d.cfg.Cluster {
		addr, err = p.d.addrOf(ctx, key)
	}
	w := p.wires[addr]
	if err == nil && w == nil {
		w, err = p.d.wireTo(ctx, key, answerWithin+waitTurn)
	}
	if err != nil {
		return nil, err
	}
	p.d.mu.Lock() // end may be called at the same time
	p.wires[addr] = w
	p.d.mu.Unlock()
	p.routes[key] = w
	return w, nil
}

// Send implements pubsub.Producer.
func (p *producer) Send(ctx context.Context, run []pubsub.Out) (int, error) {
	p.args, p.sent, p.results = p.args[:0], p.sent[:0], p.results[:0]
	for i := range run {
		if err := p.prepare(ctx, &run[i]); err != nil {
			if _, final := classify(err); !final || ctx.Err() != nil {
				if i == 0 {
					return 0, err
				}
				p.exchange(ctx)
				return i, err
			}
			p.results = append(p.results, pubsub.Result{Seq: run[i].Seq, Fate: pubsub.FateRefused, Err: err})
		}
	}
	p.exchange(ctx)
	return len(run), nil
}

// prepare makes the command that stores a message.
func (p *producer) prepare(ctx context.Context, o *pubsub.Out) error {
	s := sending{seq: o.Seq, to: o.To.Topic, kind: o.To.Kind, late: o.To.Kind == pubsub.PlaceMain && o.Msg.Delay > 0}
	if spread(o.To.Kind) {
		parts, err := p.d.partitions(ctx, o.To.Topic)
		switch {
		case err != nil:
			return err
		case parts > 1 && (o.Msg.Key != "" || o.To.Kind != pubsub.PlaceMain):
			s.lane = drivers.PartitionOf(o.Msg.Key, parts)
		case parts > 1:
			s.lane = int32(p.turn % uint32(parts))
			p.turn++
		}
	}
	key := placeKey(o.To, s.lane)
	var err error
	if s.wire, err = p.route(ctx, key); err != nil {
		return err
	}
	from := len(p.args)
	many := 2*len(o.Msg.Headers) > mostFields
	switch {
	case many && o.To.Kind == pubsub.PlaceMain && (s.late || o.Again):
		return says(pubsub.ErrTooLarge, "it has %d headers, with a Delay or when it is sent again at most %d", len(o.Msg.Headers), mostFields/2)
	case !many && (s.late || o.Again || o.To.Kind != pubsub.PlaceMain):
		p.viaScript(o, key, s.lane)
	default:
		p.args = append(p.args, "XADD", key, "NOMKSTREAM")
		if p.d.idempotent && o.Dedup != (pubsub.Dedup{}) {
			p.args = append(p.args, "IDMP", &p.d.id, o.Dedup.String())
		}
		p.args = encode(append(p.args, "*"), o.Msg)
	}
	s.cmd = redis.NewStringCmd(ctx, p.args[from:len(p.args):len(p.args)]...)
	p.sent = append(p.sent, s)
	return nil
}

// mostFields is how many names and values of headers a script can hand on: Lua passes no more than 8,000 values at once. What has more is dead-lettered
// without it, and may be so twice.
const mostFields = 7900

// viaScript stores what has a token that others may have used, and what is for later.
func (p *producer) viaScript(o *pubsub.Out, key string, lane int32) {
	window, delay, pid := int64(0), int64(-1), ""
	if o.Dedup != (pubsub.Dedup{}) {
		window = p.d.cfg.Dedup.Milliseconds()
		if p.d.idempotent {
			pid = p.d.id
		}
	}
	if o.To.Kind == pubsub.PlaceMain && o.Msg.Delay > 0 {
		delay = millis(o.Msg.Delay)
		p.d.deliverLater(key, o.To.Topic, lane, o.Msg.Delay)
	}
	p.args = append(p.args, "EVAL", addScript.text, 4, key, topicKey("later", o.To.Topic, lane), topicKey("laterdue", o.To.Topic, lane),
		topicKey("seen", o.To.Topic, lane)+":"+o.Dedup.String(), window, delay, pid)
	p.args = encode(p.args, o.Msg)
}

// exchange sends what is prepared, and tells the fates.
func (p *producer) exchange(ctx context.Context) {
	if len(p.sent) > 0 {
		first := p.sent[0].wire
		alone := true
		for i := range p.sent {
			alone = alone && p.sent[i].wire == first
		}
		if alone {
			p.pipeline(ctx, first)
		} else {
			var all sync.WaitGroup
			for _, w := range p.wires {
				all.Go(func() { p.pipeline(ctx, w) })
			}
			all.Wait()
		}
	}
	for i := range p.sent {
		p.results = append(p.results, p.fate(&p.sent[i]))
	}
	if len(p.results) > 0 {
		p.report(p.results)
	}
	clear(p.args)
	clear(p.sent)
}

// pipeline sends what goes over one connection, and sees to it that replicas have it.
func (p *producer) pipeline(ctx context.Context, w *wire) {
	stop := context.AfterFunc(ctx, w.cut)
	defer stop()
	pipe := w.Pipeline()
	stored := p.spec.Ack == pubsub.AckDurable && (p.d.cfg.Wait > 0 || p.d.cfg.WaitAOF)
	for i := range p.sent {
		if p.sent[i].wire == w {
			_ = pipe.Process(ctx, p.sent[i].cmd) // into the pipeline
		}
	}
	if pipe.Len() == 0 {
		return
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	if !stored {
		return
	}
	if err := p.wait(ctx, w); err != nil {
		for i := range p.sent {
			if s := &p.sent[i]; s.wire == w && s.cmd.Err() == nil {
				s.cmd.SetErr(err)
			}
		}
	}
}

// wait returns when enough replicas have all that was written on the connection. What they lack is not sent again: they may get it any time.
func (p *producer) wait(ctx context.Context, w *wire) error {
	for {
		var got []int64
		var err error
		if p.d.cfg.WaitAOF {
			got, err = w.Do(ctx, "WAITAOF", 1, p.d.cfg.Wait, waitTurn.Milliseconds()).Int64Slice()
		} else {
			var n int64
			n, err = w.Do(ctx, "WAIT", p.d.cfg.Wait, waitTurn.Milliseconds()).Int64()
			got = []int64{1, n}
		}
		switch {
		case err != nil:
			return unanswered{err}
		case len(got) == 2 && got[0] >= 1 && got[1] >= int64(p.d.cfg.Wait):
			return nil
		case ctx.Err() != nil:
			return unanswered{ctx.Err()}
		}
	}
}

// An unanswered error says that a message may be stored.
type unanswered struct{ error }

func (e unanswered) Unwrap() error { return e.error }

// fate reads the answer to one message.
func (p *producer) fate(s *sending) pubsub.Result {
	id, err := s.cmd.Result()
	r := pubsub.Result{Seq: s.seq, Fate: pubsub.FateAccepted}
	_, unknown := err.(unanswered) //nolint:errorlint // it is set here, as it is
	switch {
	case err == nil:
		if at, ok := parseID([]byte(id)); ok && !s.late {
			r.Pos = at.position(s.lane, s.kind)
		}
	case errors.Is(err, redis.Nil):
		p.d.forget(s.to)
		r.Fate, r.Err = pubsub.FateRefused, unroutable(s.to)
	case !unknown && isAnswer(err):
		r.Fate, r.Err = pubsub.FateRefused, err
	default:
		r.Fate, r.Err = pubsub.FateUnknown, err
	}
	return r
}

// isAnswer says whether the server has said so.
func isAnswer(err error) bool {
	_, ok := errors.AsType[redis.Error](err)
	return ok
}

// Close implements pubsub.Producer: nothing is outstanding.
func (p *producer) Close(ctx context.Context) error {
	p.end(ctx)
	p.d.remove(p)
	return nil
}

// end implements session.
func (p *producer) end(context.Context) {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	for _, w := range p.wires {
		w.close()
	}
}
