package kafka

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/pubsub"
)

// An outlet sends to one broker what it leads, one request at a time.
type outlet struct {
	p      *producer
	broker int32
	kick   chan struct{}
	conn   *conn
	next   []*outpart // that may have something to send; guarded by the producer's mu
}

// add lets a partition be looked at. mu is held.
func (o *outlet) add(x *outpart) {
	if !x.busy && !slices.Contains(o.next, x) {
		o.next = append(o.next, x)
		poke(o.kick)
	}
}

func (o *outlet) run() {
	p := o.p
	defer p.working.Done()
	defer func() {
		if o.conn != nil {
			o.conn.close()
		}
	}()
	for {
		req, sending := o.request()
		if len(sending) == 0 {
			select {
			case <-o.kick:
				continue
			case <-p.life.Done():
				return
			}
		}
		var res *sarama.ProduceResponse
		err := o.connect()
		asked := err == nil
		if asked {
			res, err = o.send(req)
		}
		o.take(res, err, asked, sending)
	}
}

// A shipment is a batch on its way: of one partition there is one at a time.
type shipment struct {
	x     *outpart
	batch []sent
	first int32 // sequence number
}

// request makes batches of what is there.
func (o *outlet) request() (*sarama.ProduceRequest, []shipment) {
	p := o.p
	p.mu.Lock()
	var sending []shipment
	for _, x := range o.next {
		if x.busy || x.leader != o.broker || len(x.batch)+len(x.queue) == 0 {
			continue
		}
		if len(x.batch) == 0 {
			x.batch, x.queue = x.cut(p.limit())
			x.since = time.Now()
		}
		x.busy = true
		sending = append(sending, shipment{x, x.batch, x.next})
	}
	clear(o.next)
	o.next = o.next[:0]
	p.mu.Unlock()
	if len(sending) == 0 {
		return nil, nil
	}
	req := &sarama.ProduceRequest{RequiredAcks: p.ack, Timeout: int32(answerWithin / 2 / time.Millisecond), Version: 8}
	for _, s := range sending {
		b := records(s.batch)
		b.Codec, b.CompressionLevel = p.codec, sarama.CompressionLevelDefault
		b.ProducerID, b.ProducerEpoch, b.FirstSequence = p.id, p.epoch, -1
		if p.id >= 0 {
			b.FirstSequence = s.first
		}
		req.AddBatch(s.x.topic, s.x.partition, b)
	}
	return req, sending
}

func (p *producer) limit() int { return min(batchBytes, p.d.limit-framing) }

// cut takes the next batch off the queue.
func (x *outpart) cut(limit int) (batch, rest []sent) {
	n, size := 0, 0
	for n < len(x.queue) && (n == 0 || x.most == 0 || n < x.most) {
		m := x.queue[n].msg
		size += int(m.Size()) + 160 + 8*len(m.Headers) // what a record and our headers take at most
		if n > 0 && size > limit {
			break
		}
		n++
	}
	return x.queue[:n:n], x.queue[n:]
}

// connect makes sure that there is a connection. An error says that nothing was sent.
func (o *outlet) connect() error {
	if o.conn != nil {
		return nil
	}
	p := o.p
	address, err := p.d.addressOf(o.broker)
	if err != nil {
		return err
	}
	c, err := p.d.dial(p.life, address, answerWithin)
	if err == nil {
		o.conn = c
	}
	return err
}

func (o *outlet) send(req *sarama.ProduceRequest) (*sarama.ProduceResponse, error) {
	res, err := call(o.p.life, o.conn, func(b *sarama.Broker) (*sarama.ProduceResponse, error) { return b.Produce(req) })
	if err != nil {
		o.conn.close()
		o.conn = nil
	}
	return res, err
}

// take reads the answer; there is none where err says why. asked = the request went out.
func (o *outlet) take(res *sarama.ProduceResponse, err error, asked bool, sending []shipment) {
	p := o.p
	n := 0
	for _, s := range sending {
		n += len(s.batch)
	}
	told := make([]pubsub.Result, 0, n)
	p.mu.Lock()
	for _, s := range sending {
		x := s.x
		x.busy = false
		if err != nil || len(x.batch) == 0 { // the session was given up meanwhile
			continue
		}
		if offset, fault := p.answerTo(x, res); accepts(fault) {
			told = append(told, o.outcome(x, fault, offset)...)
		}
	}
	for _, s := range sending { // the rest, which may end the session for all, is told when what the same answer accepts is
		x := s.x
		switch {
		case len(x.batch) == 0:
		case err != nil: // whatever it is, SASL's too, it is not what a leader says of this batch
			x.doubt = x.doubt || asked
			told = append(told, o.later(x, err)...)
		default:
			offset, fault := p.answerTo(x, res)
			told = append(told, o.outcome(x, fault, offset)...)
		}
		if len(x.batch)+len(x.queue) > 0 {
			p.flush(x)
		}
	}
	p.mu.Unlock()
	p.tell(told)
}

// answerTo finds what the leader says of a batch.
func (p *producer) answerTo(x *outpart, res *sarama.ProduceResponse) (offset int64, fault error) {
	if p.ack == sarama.NoResponse {
		return -1, nil
	}
	switch b := res.GetBlock(x.topic, x.partition); {
	case b == nil:
		return -1, sarama.ErrIncompleteResponse
	case b.Err != sarama.ErrNoError:
		for _, e := range b.RecordErrors {
			if e.BatchIndexErrorMessage != nil { // why, where the number alone says little
				return -1, fmt.Errorf("%w: %s", b.Err, *e.BatchIndexErrorMessage)
			}
		}
		return -1, b.Err
	default:
		return b.Offset, nil
	}
}

// outcome tells what the leader's answer makes of a batch. mu is held.
func (o *outlet) outcome(x *outpart, fault error, offset int64) (told []pubsub.Result) {
	p := o.p
	batch := x.batch
	switch {
	case accepts(fault):
		told = make([]pubsub.Result, 0, len(batch))
		for i, s := range batch {
			r := pubsub.Result{Seq: s.seq, Fate: pubsub.FateAccepted}
			if offset >= 0 && p.ack != sarama.NoResponse {
				r.Pos = pubsub.NewPosition(positionKind, offset+int64(i), s.store, x.partition)
			}
			told = append(told, r)
		}
		x.next = follow(x.next, len(batch))
		x.over()
		p.answered(len(told))
	case unsure(fault):
		x.doubt = x.doubt || !errors.Is(fault, sarama.ErrUnknownTopicOrPartition) && !errors.Is(fault, sarama.ErrNotEnoughReplicas)
		told = o.later(x, fault)
	case x.doubt, !refuses(fault): // a refusal says nothing of an attempt before it that was not answered
		told = p.giveUp(fault)
	case len(batch) > 1 && ofOne(fault): // which one? None of them is stored, so all have their turn again
		x.over()
		x.queue, x.most = append(slices.Clip(batch), x.queue...), len(batch)/2
	case tooLarge(fault):
		return o.refused(x, says(pubsub.ErrTooLarge, "the message is larger than max.message.bytes of the topic %q", x.topic))
	default:
		return o.refused(x, fault)
	}
	return told
}

func accepts(fault error) bool {
	return fault == nil || errors.Is(fault, sarama.ErrDuplicateSequenceNumber)
}

func tooLarge(err error) bool {
	return errors.Is(err, sarama.ErrMessageSizeTooLarge) || errors.Is(err, sarama.ErrMessageSetSizeTooLarge)
}

// ofOne says whether a batch is refused for what one of its messages is.
func ofOne(err error) bool {
	return tooLarge(err) || errors.Is(err, sarama.ErrInvalidRecord) || errors.Is(err, sarama.ErrInvalidTimestamp)
}

// later lets a batch be sent again, to whoever leads then, unless that has gone on for too long. mu is held.
func (o *outlet) later(x *outpart, fault error) []pubsub.Result {
	if o.p.life.Err() != nil {
		return o.p.giveUp(errGone)
	}
	x.leader, x.again = -1, time.Now().Add(min(joinRetry<<min(x.tries, 5), time.Second))
	x.tries++
	return o.p.late(x, fault)
}

// refused says that the batch is not stored: the next one has its sequence number. So this must be certain: the leader takes what comes with a
// number that it has stored for the same batch again, and says that it is accepted. mu is held.
func (o *outlet) refused(x *outpart, err error) (told []pubsub.Result) {
	for _, s := range x.batch {
		told = append(told, pubsub.Result{Seq: s.seq, Fate: pubsub.FateRefused, Err: err})
	}
	x.over()
	o.p.answered(len(told))
	return told
}

// over ends what there is to know of a batch. mu is held.
func (x *outpart) over() { x.batch, x.most, x.tries, x.doubt = nil, 0, 0, false }

// follow is the sequence number after n more: they go round.
func follow(sequence int32, n int) int32 { return int32((int64(sequence) + int64(n)) % (1 << 31)) }

// records makes a batch. All records of one share their memory.
func records(list []sent) *sarama.RecordBatch {
	now := time.Now()
	b := &sarama.RecordBatch{Version: 2, FirstTimestamp: now, MaxTimestamp: now, LastOffsetDelta: int32(len(list) - 1)}
	n, size := 0, 0
	for i := range list {
		m := list[i].msg
		n += len(m.Headers) + maxOwn
		size += len(m.ID) + len(m.Type) + len(m.ContentType) + len(m.Key) + 40
		for k := range m.Headers {
			size += len(m.Headers[k].Name) + len(m.Headers[k].Value)
		}
	}
	w := wire{texts: make([]byte, 0, size), headers: make([]sarama.RecordHeader, 0, n), pointers: make([]*sarama.RecordHeader, 0, n)}
	all := make([]sarama.Record, len(list))
	b.Records = make([]*sarama.Record, len(list))
	for i := range list {
		m := list[i].msg
		r := &all[i]
		r.OffsetDelta, r.Value = int64(i), m.Payload
		if m.Key != "" {
			r.Key = w.text(m.Key)
		}
		r.Headers = w.of(m)
		b.Records[i] = r
	}
	return b
}

// A wire writes headers into memory that they share.
type wire struct {
	texts    []byte
	headers  []sarama.RecordHeader
	pointers []*sarama.RecordHeader
	second   int64 // of stamp
	stamp    []byte
}

func (w *wire) text(s string) []byte {
	from := len(w.texts)
	w.texts = append(w.texts, s...)
	return w.texts[from:len(w.texts):len(w.texts)]
}

func (w *wire) add(name, value []byte) {
	w.headers = append(w.headers, sarama.RecordHeader{Key: name, Value: value})
	w.pointers = append(w.pointers, &w.headers[len(w.headers)-1])
}

// stampLayout is how a time begins that wire.time writes.
const stampLayout = "2006-01-02T15:04:05"

// time writes RFC 3339 with nanoseconds. Most messages of a batch are of the same second.
func (w *wire) time(t time.Time) []byte {
	if t = t.UTC(); w.stamp == nil || t.Unix() != w.second {
		w.second, w.stamp = t.Unix(), t.AppendFormat(w.stamp[:0], stampLayout)
	}
	from := len(w.texts)
	w.texts = append(w.texts, w.stamp...)
	if n := t.Nanosecond(); n > 0 {
		w.texts = append(w.texts, '.')
		digits := strconv.AppendInt(make([]byte, 0, 10), int64(1_000_000_000+n), 10)[1:]
		for digits[len(digits)-1] == '0' {
			digits = digits[:len(digits)-1]
		}
		w.texts = append(w.texts, digits...)
	}
	w.texts = append(w.texts, 'Z')
	return w.texts[from:len(w.texts):len(w.texts)]
}
