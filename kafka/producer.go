package kafka

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A producer is one session, with an id at the brokers by which they recognise a batch that they have already: one that a leader did not answer is sent
// again as it was, to whoever leads then, and stored once and in its order. What is not confirmed in the end may be stored, and ends the session.
//
// It does not go through the client's AsyncProducer, which sends what comes behind a batch that it gives up, cannot be stopped in mid-way, and hands each
// message through six goroutines. A partition has one batch on its way; what comes meanwhile is the next one. An outlet sends them, one for each broker.
// mu guards all that is below it.
type producer struct {
	d       *driver
	ack     sarama.RequiredAcks
	codec   sarama.CompressionCodec
	id      int64 // -1 = none: not idempotent
	epoch   int16
	report  func([]pubsub.Result)
	life    context.Context //nolint:containedctx // of its connections
	cut     context.CancelFunc
	working sync.WaitGroup
	lost    chan struct{} // for locate

	mu      sync.Mutex
	dead    error
	parts   map[unit]*outpart
	outlets map[int32]*outlet
	turn    int32 // for messages without a key
	open    int   // messages without an answer
	quiet   chan struct{}
}

// An outpart is what is to go to one partition.
type outpart struct {
	unit
	leader int32 // -1 = to be found
	queue  []sent
	batch  []sent // on its way, or to be sent again; the queue waits for it
	busy   bool   // it is on its way
	next   int32  // sequence number of the batch, or of the next one
	since  time.Time
	most   int // messages in a batch; 0 = as many as fit
	gone   time.Time
	tries  int  // of the batch
	doubt  bool // one of them, without a clear answer, may have stored the batch
	again  time.Time
}

// A sent is a message on its way.
type sent struct {
	msg   *pubsub.Message
	seq   uint64
	store int64
	at    time.Time
}

const (
	produceWithin = 30 * time.Second // in which a batch is sent again: as long as a publisher waits by default
	batchBytes    = 512 << 10        // of one partition; one message may be larger
	turnAfter     = 32               // messages without a key go to one partition before the next one has its turn
)

// OpenProducer implements pubsub.Driver.
func (d *driver) OpenProducer(ctx context.Context, s pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	p := &producer{
		d: d, id: -1, epoch: -1, report: report, lost: make(chan struct{}, 1), parts: map[unit]*outpart{}, outlets: map[int32]*outlet{},
	}
	var err error
	if p.codec, err = codec(d.cfg.Compression); err != nil {
		return nil, err
	}
	switch s.Ack {
	case pubsub.AckDurable:
		p.ack = sarama.WaitForAll
		if p.id, p.epoch, err = d.producerID(ctx); err != nil {
			return nil, err
		}
	case pubsub.AckLeader:
		p.ack = sarama.WaitForLocal
	case pubsub.AckNone:
		p.ack = sarama.NoResponse
	}
	p.life, p.cut = context.WithCancel(d.life)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		p.cut()
		return nil, errGone
	}
	d.sessions[p] = struct{}{}
	p.working.Add(1)
	go p.locate()
	return p, nil
}

// producerID asks for an id that nobody else has.
func (d *driver) producerID(ctx context.Context) (id int64, epoch int16, err error) {
	req := &sarama.InitProducerIDRequest{Version: 4, ProducerID: -1, ProducerEpoch: -1}
	err = again(ctx, func() error {
		res, err := anywhere(ctx, d, func(b *sarama.Broker) (*sarama.InitProducerIDResponse, error) { return b.InitProducerID(req) })
		if err == nil && res.Err != sarama.ErrNoError {
			err = res.Err
		}
		if err == nil {
			id, epoch = res.ProducerID, res.ProducerEpoch
		}
		return err
	})
	return id, epoch, err
}

// Send implements pubsub.Producer.
func (p *producer) Send(ctx context.Context, run []pubsub.Out) (n int, err error) {
	now := time.Now()
	var refused []pubsub.Result
	var place pubsub.Place
	var topic string
	var from, to int32
	p.mu.Lock()
	for i := range run {
		o := &run[i]
		if err = p.dead; err != nil {
			break
		}
		if here := placeOf(o.To); i == 0 || here != place {
			place = here
			p.mu.Unlock()
			topic, from, to, err = p.d.exists(ctx, here)
			p.mu.Lock()
			if err != nil {
				if code, _ := classify(err); ctx.Err() != nil || code == pubsub.ErrUnavailable {
					break
				}
				refused = append(refused, pubsub.Result{Seq: o.Seq, Fate: pubsub.FateRefused, Err: err})
				place, err = pubsub.Place{Topic: "\x00"}, nil // the next one looks again
				n++
				continue
			}
			if err = p.dead; err != nil { // meanwhile
				break
			}
		}
		if i%turnAfter == 0 {
			p.turn = (p.turn + 1) & math.MaxInt32 // it goes round
		}
		partition := from + p.turn%(to-from)
		if o.Msg.Key != "" && (o.To.Kind == pubsub.PlaceMain || o.To.Kind == pubsub.PlaceRetry && o.To.Tier == 0) {
			partition = from + partitionOf(o.Msg.Key, to-from)
		}
		x := p.part(unit{topic, partition})
		x.queue = append(x.queue, sent{o.Msg, o.Seq, storeOf(o.To), now})
		if len(x.queue) == 1 {
			p.flush(x) // which takes all that comes before mu is let go
		}
		p.open++
		n++
	}
	p.mu.Unlock()
	if len(refused) > 0 {
		p.report(refused)
	}
	return n, err
}

// placeOf leaves of a message's place what counts.
func placeOf(p pubsub.Place) pubsub.Place {
	if p.Kind == pubsub.PlaceMain {
		p.Group, p.Tier = "", 0
	}
	return p
}

// part finds a partition. mu is held.
func (p *producer) part(u unit) *outpart {
	x := p.parts[u]
	if x == nil {
		x = &outpart{unit: u, leader: -1}
		p.d.mu.Lock()
		if info, ok := p.d.topics[u.topic]; ok && u.partition < info.n() {
			x.leader = info.parts[u.partition].leader
		}
		p.d.mu.Unlock()
		p.parts[u] = x
	}
	return x
}

// flush lets the outlet of a partition's leader look, or has the leader found. mu is held.
func (p *producer) flush(x *outpart) {
	if p.life.Err() != nil {
		return
	}
	if x.leader < 0 {
		poke(p.lost)
		return
	}
	o := p.outlets[x.leader]
	if o == nil {
		o = &outlet{p: p, broker: x.leader, kick: make(chan struct{}, 1)}
		p.outlets[x.leader] = o
		p.working.Add(1)
		go o.run()
	}
	o.add(x)
}

// locate finds leaders.
func (p *producer) locate() {
	defer p.working.Done()
	for {
		select {
		case <-p.life.Done():
			return
		case <-p.lost:
		}
		if !p.locateOnce() {
			if !pause(p.life, joinRetry) {
				return
			}
			poke(p.lost)
		}
	}
}

// locateOnce returns false if some leaders are still to be found.
func (p *producer) locateOnce() bool {
	var names []string
	p.mu.Lock()
	for _, x := range p.parts {
		if x.leader < 0 && len(x.batch)+len(x.queue) > 0 {
			names = append(names, x.topic)
		}
	}
	p.mu.Unlock()
	if len(names) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(p.life, answerWithin)
	defer cancel()
	all, err := p.d.describe(ctx, names)
	found := err == nil
	var told []pubsub.Result
	p.mu.Lock()
	for _, x := range p.parts {
		if x.leader >= 0 || len(x.batch)+len(x.queue) == 0 {
			continue
		}
		info, ok := all[x.topic]
		switch {
		case time.Now().Before(x.again):
			found = false
		case err != nil:
			told = append(told, p.late(x, err)...)
		case ok && x.partition < info.n() && info.parts[x.partition].leader >= 0:
			x.leader, x.gone = info.parts[x.partition].leader, time.Time{}
			p.flush(x)
		case ok:
			found = false
			told = append(told, p.late(x, errSearch)...)
		case x.gone.IsZero():
			x.gone, found = time.Now(), false
		case time.Since(x.gone) < vanishes:
			found = false
		default:
			told = append(told, p.vanished(x)...)
		}
	}
	p.mu.Unlock()
	p.tell(told)
	return found
}

// late gives a batch up that has been tried for too long: it may be stored. mu is held.
func (p *producer) late(x *outpart, err error) []pubsub.Result {
	since := x.since
	if len(x.batch) == 0 {
		since = x.queue[0].at
	}
	if time.Since(since) < produceWithin {
		return nil
	}
	return p.giveUp(err)
}

// giveUp ends the session. What was sent may be stored, what was not is certainly not. mu is held.
func (p *producer) giveUp(err error) (told []pubsub.Result) {
	if p.dead == nil {
		p.dead = err
	}
	p.cut()
	for _, x := range p.parts {
		for _, s := range x.batch {
			told = append(told, pubsub.Result{Seq: s.seq, Fate: pubsub.FateUnknown, Err: err})
		}
		for _, s := range x.queue {
			told = append(told, pubsub.Result{Seq: s.seq, Fate: pubsub.FateRefused, Err: errGone})
		}
		x.batch, x.queue = nil, nil
	}
	p.answered(len(told))
	return told
}

// vanished says that what is to go to a partition is not stored, since its topic is not there. The sequence goes on: a topic of that name that is made
// later begins with whatever comes first, and one that was hidden only would take a number that it knows for a batch that it has. mu is held.
func (p *producer) vanished(x *outpart) (told []pubsub.Result) {
	err := says(pubsub.ErrUnroutable, "there is no topic %q", x.topic)
	if x.doubt { // it may have been stored before that
		return p.giveUp(err)
	}
	for _, list := range [][]sent{x.batch, x.queue} {
		for _, s := range list {
			told = append(told, pubsub.Result{Seq: s.seq, Fate: pubsub.FateRefused, Err: err})
		}
	}
	x.over()
	x.queue, x.gone = nil, time.Time{}
	p.answered(len(told))
	return told
}

// answered counts messages that have their answer. mu is held.
func (p *producer) answered(n int) {
	p.open -= n
	if p.open == 0 && p.quiet != nil {
		close(p.quiet)
		p.quiet = nil
	}
}

func (p *producer) tell(told []pubsub.Result) {
	if len(told) > 0 {
		p.report(told)
	}
}

// die breaks the session.
func (p *producer) die(err error) {
	p.mu.Lock()
	told := p.giveUp(err)
	p.mu.Unlock()
	p.tell(told)
	p.working.Wait()
}

// Close implements pubsub.Producer.
func (p *producer) Close(ctx context.Context) error {
	quiet := make(chan struct{})
	p.mu.Lock()
	if p.dead == nil {
		p.dead = errGone
	}
	if p.open == 0 {
		close(quiet)
	} else {
		p.quiet = quiet
	}
	p.mu.Unlock()
	select {
	case <-quiet:
	case <-ctx.Done():
	}
	p.die(errGone)
	p.d.mu.Lock()
	delete(p.d.sessions, p)
	p.d.mu.Unlock()
	return nil
}

// refuses says whether a leader's answer means that it has not stored the batch, and never will.
func refuses(err error) bool {
	for _, e := range []sarama.KError{
		sarama.ErrMessageSizeTooLarge, sarama.ErrMessageSetSizeTooLarge, sarama.ErrTopicAuthorizationFailed, sarama.ErrClusterAuthorizationFailed,
		sarama.ErrInvalidTopic, sarama.ErrInvalidRecord, sarama.ErrInvalidTimestamp, sarama.ErrUnsupportedForMessageFormat, sarama.ErrUnsupportedCompressionType,
		sarama.ErrInvalidRequiredAcks, sarama.ErrPolicyViolation,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// unsure says whether a leader's answer leaves open whether a batch is stored, or may be another soon.
func unsure(err error) bool {
	for _, e := range []sarama.KError{
		sarama.ErrNotLeaderForPartition, sarama.ErrLeaderNotAvailable, sarama.ErrRequestTimedOut, sarama.ErrNotEnoughReplicas,
		sarama.ErrNotEnoughReplicasAfterAppend, sarama.ErrNetworkException, sarama.ErrKafkaStorageError, sarama.ErrUnknownTopicOrPartition,
		sarama.ErrBrokerNotAvailable, sarama.ErrReplicaNotAvailable, sarama.ErrFencedLeaderEpoch, sarama.ErrUnknownLeaderEpoch, sarama.ErrInvalidMessage,
		sarama.ErrThrottlingQuotaExceeded, sarama.ErrConcurrentTransactions,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	_, answered := errors.AsType[sarama.KError](err)
	return !answered
}
