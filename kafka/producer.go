package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A producer is one idempotent session of the client's, with connections of its own. Inside it the client sends again what a leader did not answer, in
// its order and stored once; what it gives up in the end may be stored, and ends the session.
type producer struct {
	d      *driver
	silent bool // the broker does not answer
	report func([]pubsub.Result)
	life   context.Context //nolint:containedctx // of its connections
	cut    context.CancelFunc
	client sarama.Client
	async  sarama.AsyncProducer
	ended  chan struct{} // closed when every message has its answer
	turn   int32         // for messages without a key

	sending sync.RWMutex // held for reading while Input is used
	closing bool

	mu   sync.Mutex
	dead error
}

// turnAfter is how many messages without a key go to one partition before the next one has its turn.
const turnAfter = 32

const (
	retries   = 30 // of one batch, with pauses: about as long as a publisher waits by default
	firstWait = 50 * time.Millisecond
	lastWait  = time.Second
)

// OpenProducer implements pubsub.Driver.
func (d *driver) OpenProducer(ctx context.Context, s pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	p := &producer{d: d, silent: s.Ack == pubsub.AckNone, report: report, ended: make(chan struct{})}
	p.life, p.cut = context.WithCancel(d.life)
	conf, err := p.config(s)
	if err != nil {
		p.cut()
		return nil, err
	}
	stop := context.AfterFunc(ctx, p.cut)
	if p.client, err = sarama.NewClient(d.addresses(), conf); err == nil {
		if p.async, err = sarama.NewAsyncProducerFromClient(p.client); err != nil {
			_ = p.client.Close() // the error before is the one that counts
		}
	}
	if !stop() && err != nil {
		err = ctx.Err()
	}
	if err == nil && p.life.Err() != nil {
		_ = p.async.Close() // nothing was sent
		_ = p.client.Close()
		err = errGone
	}
	if err != nil {
		p.cut()
		return nil, err
	}
	d.mu.Lock()
	gone := d.closed
	d.sessions[p] = struct{}{}
	d.mu.Unlock()
	go p.answers()
	if gone {
		p.die(errGone)
	}
	return p, nil
}

func (p *producer) config(s pubsub.ProducerSpec) (conf *sarama.Config, err error) {
	conf = p.d.config(p.life)
	c := &conf.Producer
	switch s.Ack {
	case pubsub.AckDurable:
		c.RequiredAcks, c.Idempotent, conf.Net.MaxOpenRequests = sarama.WaitForAll, true, 1
	case pubsub.AckLeader:
		c.RequiredAcks = sarama.WaitForLocal
	case pubsub.AckNone:
		c.RequiredAcks = sarama.NoResponse
	}
	if c.Compression, err = codec(p.d.cfg.Compression); err != nil {
		return nil, err
	}
	backoff := sarama.NewExponentialBackoff(firstWait, lastWait)
	wait := func(retries, most int) time.Duration {
		if p.life.Err() != nil {
			return 0 // nothing will come of it
		}
		return backoff(retries, most)
	}
	c.Return.Successes, c.Return.Errors = true, true
	c.Partitioner = sarama.NewManualPartitioner
	c.MaxMessageBytes = p.d.limit
	c.Timeout = answerWithin / 2
	c.Retry.Max, c.Retry.BackoffFunc = retries, wait
	c.Transaction.Retry.BackoffFunc = wait
	conf.Metadata.Retry.Max, conf.Metadata.Retry.BackoffFunc = 3, wait
	return conf, nil
}

// A sent is a message on its way. It is what the client encodes, too.
type sent struct {
	msg   sarama.ProducerMessage
	out   *pubsub.Message
	seq   uint64
	store int64
}

// Encode implements sarama.Encoder: the value.
func (s *sent) Encode() ([]byte, error) { return s.out.Payload, nil }

// Length implements sarama.Encoder.
func (s *sent) Length() int { return len(s.out.Payload) }

// A sentKey is the key of a sent.
type sentKey sent

// Encode implements sarama.Encoder.
func (s *sentKey) Encode() ([]byte, error) { return []byte(s.out.Key), nil }

// Length implements sarama.Encoder.
func (s *sentKey) Length() int { return len(s.out.Key) }

// Send implements pubsub.Producer.
func (p *producer) Send(ctx context.Context, run []pubsub.Out) (int, error) {
	p.sending.RLock()
	defer p.sending.RUnlock()
	if p.closing {
		return 0, errGone
	}
	now := time.Now()
	list := make([]sent, len(run))
	var refused []pubsub.Result
	defer func() {
		if len(refused) > 0 {
			p.report(refused)
		}
	}()
	var place pubsub.Place
	var topic string
	var from, to int32
	for i := range run {
		o := &run[i]
		if err := p.death(); err != nil {
			return i, err
		}
		if here := placeOf(o.To); i == 0 || here != place {
			var err error
			place = here
			if topic, from, to, err = p.d.exists(ctx, here); err != nil {
				code, _ := classify(err)
				if ctx.Err() != nil || code == pubsub.ErrUnavailable {
					return i, err
				}
				refused = append(refused, pubsub.Result{Seq: o.Seq, Fate: pubsub.FateRefused, Err: err})
				place = pubsub.Place{Topic: "\x00"} // the next one looks again
				continue
			}
		}
		if i%turnAfter == 0 {
			p.turn++
		}
		s := &list[i]
		s.out, s.seq, s.store = o.Msg, o.Seq, storeOf(o.To)
		s.msg = sarama.ProducerMessage{Topic: topic, Headers: headersOf(o.Msg), Timestamp: now, Metadata: s, Partition: from + p.turn%(to-from)}
		if o.Msg.Key != "" {
			s.msg.Key = (*sentKey)(s)
			if o.To.Kind == pubsub.PlaceMain || o.To.Kind == pubsub.PlaceRetry && o.To.Tier == 0 {
				s.msg.Partition = from + partitionOf(o.Msg.Key, to-from)
			}
		}
		if o.Msg.Payload != nil {
			s.msg.Value = s
		}
		select {
		case p.async.Input() <- &s.msg:
		case <-ctx.Done():
			return i, ctx.Err()
		case <-p.life.Done():
			return i, errGone
		}
	}
	return len(run), nil
}

// placeOf leaves of a message's place what counts.
func placeOf(p pubsub.Place) pubsub.Place {
	if p.Kind == pubsub.PlaceMain {
		p.Group, p.Tier = "", 0
	}
	return p
}

func (p *producer) death() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

const maxTold = 256

// answers reports the fates, until the client has told all.
func (p *producer) answers() {
	defer close(p.ended)
	successes, failures := p.async.Successes(), p.async.Errors()
	var told []pubsub.Result
	for successes != nil || failures != nil {
		select {
		case m, ok := <-successes:
			if !ok {
				successes = nil
				break
			}
			told = append(told, p.accepted(m))
		case e, ok := <-failures:
			if !ok {
				failures = nil
				break
			}
			told = append(told, p.failed(e))
		}
		for more := true; more && len(told) < maxTold; {
			select {
			case m, ok := <-successes:
				if more = ok; ok {
					told = append(told, p.accepted(m))
				}
			default:
				more = false
			}
		}
		if len(told) > 0 {
			p.report(told)
			told = told[:0]
		}
	}
}

func (p *producer) accepted(m *sarama.ProducerMessage) pubsub.Result {
	s := m.Metadata.(*sent)
	r := pubsub.Result{Seq: s.seq, Fate: pubsub.FateAccepted}
	if !p.silent {
		r.Pos = pubsub.NewPosition(positionKind, m.Offset, s.store, m.Partition)
	}
	return r
}

// failed tells what the client's error means. One that may pass does not tell whether an earlier try was stored.
func (p *producer) failed(e *sarama.ProducerError) pubsub.Result {
	s := e.Msg.Metadata.(*sent)
	r := pubsub.Result{Seq: s.seq, Fate: pubsub.FateRefused, Err: e.Err}
	code, final := classify(e.Err)
	var bad sarama.ConfigurationError
	switch {
	case errors.As(e.Err, &bad) && strings.Contains(bad.Error(), "larger than"):
		r.Err = says(pubsub.ErrTooLarge, "the message is larger than message.max.bytes of the broker, which is %d", p.d.limit)
	case code == pubsub.ErrNotFound:
		p.d.forget(e.Msg.Topic)
		r.Err = says(pubsub.ErrUnroutable, "there is no topic %q", e.Msg.Topic)
	case final:
	default:
		r.Fate = pubsub.FateUnknown
		p.mu.Lock()
		if p.dead == nil {
			p.dead = fmt.Errorf("a message was not confirmed: %w", e.Err)
		}
		p.mu.Unlock()
	}
	return r
}

// die breaks the session: what has no answer has an unknown fate.
func (p *producer) die(err error) {
	p.mu.Lock()
	if p.dead == nil {
		p.dead = err
	}
	p.mu.Unlock()
	p.cut()
	p.shut()
	_ = p.client.Close() // its producer ends all the sooner
	<-p.ended
}

// shut lets the client take no more, and tell the fates of what it has.
func (p *producer) shut() {
	p.sending.Lock()
	defer p.sending.Unlock()
	if !p.closing {
		p.closing = true
		p.async.AsyncClose()
	}
}

// Close implements pubsub.Producer.
func (p *producer) Close(ctx context.Context) error {
	stop := context.AfterFunc(ctx, p.cut)
	defer stop()
	p.shut()
	select {
	case <-p.ended:
	case <-ctx.Done():
	}
	p.die(errGone)
	p.d.mu.Lock()
	delete(p.d.sessions, p)
	p.d.mu.Unlock()
	return nil
}
