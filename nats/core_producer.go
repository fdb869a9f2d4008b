package nats

import (
	"context"
	"errors"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"

	"github.com/omnibus-go/omnibus/internal/stuck"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A coreProducer publishes, and asks the server with one PING after many messages whether it has read them. What nobody is there for comes back
// before the PONG, as a reply without a body; what is denied is complained of. The server says no more than that: it does not tell whether a
// subscriber has got a message.
type coreProducer struct {
	*link
	d       *driver
	report  func([]pubsub.Result)
	ack     pubsub.Ack
	inbox   string
	sub     *client.Subscription
	replies chan *client.Msg
	nobody  map[uint64]bool // nobody is there for these; only confirm uses it
	dropped int             // replies that did not fit; only confirm uses it
	kick    chan struct{}   // one token: there is something to confirm
	stop    context.CancelFunc
	writes  *stuck.Watch
	ended   chan struct{} // closed when confirm has returned

	mu      sync.Mutex
	pending []coreSent // in the order of sending
	dead    error
	quiet   chan struct{} // closed when nothing is pending any more
	sending bool
	rounds  int
	heard   error         // the last complaint
	hears   chan struct{} // one token: there was another
	denied  map[string]denial
}

// A denial is a complaint about a subject, and in which round it was heard: it can be about what the next one confirms.
type denial struct {
	err   error
	round int
}

// A coreSent is a message that was sent and is not confirmed.
type coreSent struct {
	seq     uint64
	subject string
}

const replyRoom = 1024 // for the answers of foreign subscribers, who take a message for a request

// OpenProducer implements pubsub.Driver.
func (d *coreDriver) OpenProducer(ctx context.Context, spec pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	at, err := d.links.connected(ctx)
	if err != nil {
		return nil, err
	}
	p := &coreProducer{
		link: at, d: d.links, report: report, ack: spec.Ack, inbox: at.nc.NewRespInbox() + ".", replies: make(chan *client.Msg, spec.MaxPending+replyRoom), nobody: map[uint64]bool{},
		kick: make(chan struct{}, 1), ended: make(chan struct{}), heard: at.nc.LastError(), hears: make(chan struct{}, 1), denied: map[string]denial{}, writes: stuck.New(at.cut),
	}
	if p.sub, err = at.nc.ChanSubscribe(p.inbox+"*", p.replies); err != nil {
		return nil, err
	}
	var life context.Context
	life, p.stop = context.WithCancel(context.WithoutCancel(ctx))
	go p.confirm(life)
	if err := d.links.add(at, p); err != nil {
		return nil, errors.Join(err, p.Close(ctx))
	}
	return p, nil
}

// Send implements pubsub.Producer.
func (p *coreProducer) Send(ctx context.Context, run []pubsub.Out) (int, error) {
	p.writes.Begin(ctx)
	defer p.writes.End()
	p.setSending(true)
	defer func() {
		p.setSending(false)
		select {
		case p.kick <- struct{}{}:
		default:
		}
	}()
	for i := range run {
		o := &run[i]
		if o.To.Kind != pubsub.PlaceMain {
			err := says(pubsub.ErrUnsupported, "a group has no place of its own: %s", coreKeepsNothing)
			p.report([]pubsub.Result{{Seq: o.Seq, Fate: pubsub.FateRefused, Err: err}})
			continue
		}
		m := &client.Msg{Subject: o.To.Topic}
		encode(m, o.Msg, o.Dedup)
		if p.ack != pubsub.AckNone {
			m.Reply = p.inbox + strconv.FormatUint(o.Seq, 36)
		}
		err := p.nc.PublishMsg(m)
		switch {
		case err == nil && p.ack == pubsub.AckNone:
			p.report([]pubsub.Result{{Seq: o.Seq, Fate: pubsub.FateAccepted}})
		case err == nil:
			err = p.sent(o)
		case errors.Is(err, client.ErrConnectionClosed):
			return i, err
		default:
			r := pubsub.Result{Seq: o.Seq, Fate: pubsub.FateRefused, Err: err}
			if _, final := classify(err); !final { // the network's: some of its bytes may be on their way
				r.Fate = pubsub.FateUnknown
			}
			p.report([]pubsub.Result{r})
			if r.Fate == pubsub.FateRefused {
				err = nil
			}
		}
		if err != nil {
			return i + 1, err
		}
	}
	return len(run), nil
}

func (p *coreProducer) setSending(on bool) {
	p.mu.Lock()
	p.sending = on
	p.mu.Unlock()
}

// sent notes what the client has taken, unless the session died meanwhile.
func (p *coreProducer) sent(o *pubsub.Out) error {
	p.mu.Lock()
	dead := p.dead
	if dead == nil {
		p.pending = append(p.pending, coreSent{o.Seq, o.To.Topic})
	}
	p.mu.Unlock()
	if dead != nil {
		p.report([]pubsub.Result{{Seq: o.Seq, Fate: pubsub.FateUnknown, Err: dead}})
	}
	return dead
}

// confirm asks again and again, each time for all that was sent until then.
func (p *coreProducer) confirm(life context.Context) {
	defer close(p.ended)
	for {
		select {
		case <-p.kick:
		case <-life.Done():
			return
		}
		for p.round(life) {
		}
	}
}

// round confirms what is pending, and says whether more may be.
func (p *coreProducer) round(life context.Context) bool {
	p.mu.Lock()
	n := len(p.pending)
	p.rounds++
	p.mu.Unlock()
	if n == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(life, dialTimeout)
	err := p.nc.FlushWithContext(ctx)
	cancel()
	switch {
	case err == nil:
		if err = p.tell(life, n); err != nil {
			p.die(err)
		}
		return err == nil
	case life.Err() != nil:
		return false
	case errors.Is(err, context.DeadlineExceeded): // the next answer is one to these, too
		return true
	}
	p.die(err)
	return false
}

// tell reports the first n of what is pending: the server has read them.
func (p *coreProducer) tell(life context.Context, n int) error {
	for more := true; more; {
		select {
		case m := <-p.replies:
			if seq, err := strconv.ParseUint(strings.TrimPrefix(m.Subject, p.inbox), 36, 64); err == nil && len(m.Data) == 0 && m.Header.Get("Status") == "503" {
				p.nobody[seq] = true
			}
		default:
			more = false
		}
	}
	if dropped, err := p.sub.Dropped(); err != nil || dropped != p.dropped {
		return &brokerError{pubsub.ErrUnavailable, false, "subscribers sent more replies than there is room for, and answers of the server are lost among them"}
	}
	if err := p.hear(life); err != nil {
		return err
	}
	p.mu.Lock()
	n = min(n, len(p.pending)) // it may have died
	results := make([]pubsub.Result, n)
	for i, s := range p.pending[:n] {
		results[i] = pubsub.Result{Seq: s.seq, Fate: pubsub.FateAccepted}
		err := p.denied[s.subject].err
		if err == nil && p.nobody[s.seq] {
			err = says(pubsub.ErrUnroutable, "nobody is subscribed to %q", s.subject)
		}
		delete(p.nobody, s.seq)
		if err != nil {
			results[i].Fate, results[i].Err = pubsub.FateRefused, err
		}
	}
	p.pending = append(p.pending[:0], p.pending[n:]...)
	maps.DeleteFunc(p.denied, func(_ string, x denial) bool { return x.round < p.rounds })
	p.settled()
	p.mu.Unlock()
	p.report(results)
	return nil
}

// hear waits for the complaints that the connection has read: they are told one after the other, on a goroutine of the client's. More may come
// meanwhile, about what the next round confirms; no more than is pending.
func (p *coreProducer) hear(life context.Context) error {
	late := time.NewTimer(dialTimeout)
	defer late.Stop()
	for {
		last := p.nc.LastError()
		p.mu.Lock()
		heard := p.heard
		p.mu.Unlock()
		if heard == last { //nolint:errorlint // this very one
			return nil
		}
		select {
		case <-p.hears:
		case <-life.Done():
			return errGone
		case <-late.C:
			return &brokerError{pubsub.ErrUnavailable, false, "what the server complains of is not told: " + last.Error()}
		}
	}
}

// complain implements complainer.
func (p *coreProducer) complain(err error) {
	p.mu.Lock()
	p.heard = err
	if subject, denied := deniedSubject(err); denied {
		if p.sending || len(p.pending) > 0 { // else it is about what another publisher has sent
			p.denied[subject] = denial{err, p.rounds}
		}
	}
	p.mu.Unlock()
	select {
	case p.hears <- struct{}{}:
	default:
	}
}

// settled tells Close that nothing is pending any more. mu is held.
func (p *coreProducer) settled() {
	if len(p.pending) == 0 && p.quiet != nil {
		close(p.quiet)
		p.quiet = nil
	}
}

// die implements session: what has no answer may have been read or not.
func (p *coreProducer) die(err error) {
	p.stop()
	p.mu.Lock()
	if p.dead == nil {
		p.dead = err
	}
	lost := make([]pubsub.Result, len(p.pending))
	for i, s := range p.pending {
		lost[i] = pubsub.Result{Seq: s.seq, Fate: pubsub.FateUnknown, Err: err}
	}
	p.pending = nil
	p.settled()
	p.mu.Unlock()
	if len(lost) > 0 {
		p.report(lost)
	}
}

// Close implements pubsub.Producer.
func (p *coreProducer) Close(ctx context.Context) error {
	p.writes.Close()
	quiet := make(chan struct{})
	p.mu.Lock()
	p.quiet = quiet
	p.settled()
	p.mu.Unlock()
	select {
	case <-quiet:
	case <-ctx.Done():
	}
	p.stop()
	<-p.ended
	p.die(errGone)
	p.d.remove(p)
	err := p.sub.Unsubscribe()
	if errors.Is(err, client.ErrConnectionClosed) || errors.Is(err, client.ErrBadSubscription) {
		err = nil
	}
	return err
}
