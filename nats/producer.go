package nats

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/omnibus-go/omnibus/internal/drivers"
	"github.com/omnibus-go/omnibus/internal/stuck"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A producer publishes with an inbox of its own for the answers: the last segment of a reply names the message. It does what
// jetstream.PublishMsgAsync does, less a future, a channel and a timer for each message.
type producer struct {
	*link
	d      *driver
	spec   pubsub.ProducerSpec
	report func([]pubsub.Result)
	inbox  string
	sub    *client.Subscription
	ended  chan struct{}   // closed when answer is called no more
	told   []pubsub.Result // answers that are gathered; only answer uses it, until then
	rr     uint32          // of messages without a key
	writes *stuck.Watch

	mu      sync.Mutex
	pending map[uint64]flown // what has no answer
	newest  uint64           // the last that was sent
	dead    error
	quiet   chan struct{}     // closed when nothing is pending any more
	refuses sync.WaitGroup    // what is reported as denied right now
	denied  map[string]charge // by subject: since the timer was set; nil = it is not
	waited  map[string]charge // in the period before
}

// A flown is a message on its way.
type flown struct {
	subject string
	store   int32 // in which it will lie
}

// A charge is what the server has said about a subject within a period of deniedAfter.
type charge struct {
	err    error
	times  int    // once for each message
	newest uint64 // the last message that was sent when it was heard
}

// deniedAfter is how long, at least, answers may still be on their way when a denial is heard; at most it is twice that.
const deniedAfter = time.Second

// OpenProducer implements pubsub.Driver.
func (d *driver) OpenProducer(ctx context.Context, spec pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	at, err := d.connected(ctx)
	if err != nil {
		return nil, err
	}
	p, err := d.newProducer(at, spec, report)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (d *driver) newProducer(at *link, spec pubsub.ProducerSpec, report func([]pubsub.Result)) (*producer, error) {
	p := &producer{d: d, link: at, spec: spec, report: report, inbox: at.nc.NewRespInbox() + ".", pending: map[uint64]flown{}, ended: make(chan struct{}), writes: stuck.New(at.cut)}
	sub, err := at.nc.Subscribe(p.inbox+"*", p.answer)
	if err == nil {
		err = sub.SetPendingLimits(-1, -1) // the engine bounds what is unanswered
	}
	if err != nil {
		return nil, err
	}
	p.sub = sub
	sub.SetClosedHandler(func(string) { close(p.ended) })
	if err := d.add(at, p); err != nil {
		return nil, errors.Join(err, sub.Unsubscribe())
	}
	return p, nil
}

// Send implements pubsub.Producer.
func (p *producer) Send(ctx context.Context, run []pubsub.Out) (int, error) {
	p.writes.Begin(ctx)
	defer p.writes.End()
	for i := range run {
		o := &run[i]
		m, err := p.message(ctx, o)
		if err == nil {
			err = p.publish(o, m)
		}
		if err == nil {
			continue
		}
		if _, final := p.d.Classify(err); !final || ctx.Err() != nil {
			return i, err
		}
		p.report([]pubsub.Result{{Seq: o.Seq, Fate: pubsub.FateRefused, Err: err}})
	}
	return len(run), nil
}

// message finds out where o goes, and writes it down.
func (p *producer) message(ctx context.Context, o *pubsub.Out) (*client.Msg, error) {
	m := &client.Msg{}
	if o.To.Kind == pubsub.PlaceMain {
		parts, err := p.d.partitions(ctx, o.To.Topic)
		if err != nil {
			return nil, err
		}
		m.Subject = o.To.Topic
		if parts > 1 {
			lane := int32(p.rr % uint32(parts))
			if o.Msg.Key != "" {
				lane = drivers.PartitionOf(o.Msg.Key, parts)
			} else {
				p.rr++
			}
			m.Subject = laneSubject(o.To.Topic, lane)
		}
	} else {
		if err := p.d.groupExists(ctx, o.To); err != nil {
			return nil, err
		}
		lane := int32(0)
		if o.To.Kind == pubsub.PlaceRetry && !pubsub.IsPattern(o.To.Topic) {
			parts, err := p.d.partitions(ctx, o.To.Topic)
			if err != nil {
				return nil, err
			}
			lane = drivers.PartitionOf(o.Msg.Key, parts)
		}
		m.Subject = p.d.names.subject(o.To, strconv.Itoa(int(lane)))
	}
	encode(m, o.Msg, o.Dedup)
	if o.To.Kind == pubsub.PlaceMain && o.Msg.Delay > 0 {
		if most := time.Duration(p.d.maxAge.Load()); most > 0 && o.Msg.Delay >= most {
			return nil, says(pubsub.ErrUnsupported, "a delay of %v, and the stream %q keeps messages for %v", o.Msg.Delay, p.d.names.stream, most)
		}
		p.d.names.schedule(m, time.Now().Add(o.Msg.Delay))
	}
	return m, nil
}

// schedule lets the server store m under its subject when the time has come. The client's own option cuts the time to seconds.
func (n names) schedule(m *client.Msg, at time.Time) {
	m.Header[jetstream.ScheduleHeader] = []string{"@at " + at.UTC().Format(time.RFC3339Nano)}
	m.Header[jetstream.ScheduleTargetHeader] = []string{m.Subject}
	m.Subject = n.later() + nuid.Next()
}

// publish hands one message to the client, unless the session is dead.
func (p *producer) publish(o *pubsub.Out, m *client.Msg) error {
	if p.spec.Ack == pubsub.AckNone {
		if err := p.nc.PublishMsg(m); err != nil {
			return err
		}
		p.report([]pubsub.Result{{Seq: o.Seq, Fate: pubsub.FateAccepted}})
		return nil
	}
	m.Reply = p.inbox + strconv.FormatUint(o.Seq, 36)
	p.mu.Lock()
	if p.dead != nil {
		p.mu.Unlock()
		return p.dead
	}
	p.pending[o.Seq], p.newest = flown{m.Subject, storeOf(o.To.Kind)}, o.Seq
	p.mu.Unlock()
	err := p.nc.PublishMsg(m)
	if err != nil {
		if _, mine := p.take(o.Seq); !mine {
			return nil // its fate was told when the connection broke
		}
	}
	return err
}

// take removes what is to be answered now; whoever gets it reports it.
func (p *producer) take(seq uint64) (flown, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.pending[seq]
	delete(p.pending, seq)
	p.settled()
	return f, ok
}

// settled tells Close that nothing is pending any more. mu is held.
func (p *producer) settled() {
	if len(p.pending) == 0 && p.quiet != nil {
		close(p.quiet)
		p.quiet = nil
	}
}

// complain implements complainer: what the server lets nobody write gets no answer, only a word to the connection, which names the subject.
func (p *producer) complain(err error) {
	subject, denied := deniedSubject(err)
	if !denied {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.denied == nil {
		p.denied = map[string]charge{}
		time.AfterFunc(deniedAfter, p.refuse)
	}
	p.denied[subject] = charge{err, p.denied[subject].times + 1, p.newest}
}

// refuse reports what was denied in the period before this one and still has no answer. The server does not say which messages it means, only how many
// of a subject. They are taken to be the last ones of those sent by then: when a permission is taken away, those before are stored, and may be answered
// late. While more is sent without a pause, as many as are on their way at once wait for their turn until there is one.
//
// This is no proof: of a message that was stored it says refused if its answer takes longer than deniedAfter, and either the permission came back
// within a round trip after later ones were denied, or these were another producer's of this connection, or wanted no answer.
func (p *producer) refuse() {
	p.mu.Lock()
	due := p.waited
	p.waited, p.denied = p.denied, nil
	if len(p.waited) > 0 && p.dead == nil {
		p.denied = map[string]charge{}
		time.AfterFunc(deniedAfter, p.refuse)
	}
	sent := map[string][]uint64{}
	if len(due) > 0 {
		for seq, f := range p.pending {
			if d, ok := due[f.subject]; ok && seq <= d.newest {
				sent[f.subject] = append(sent[f.subject], seq)
			}
		}
	}
	var rs []pubsub.Result
	for subject, seqs := range sent {
		d := due[subject]
		slices.Sort(seqs)
		for _, seq := range seqs[max(0, len(seqs)-d.times):] {
			delete(p.pending, seq)
			rs = append(rs, pubsub.Result{Seq: seq, Fate: pubsub.FateRefused, Err: d.err})
		}
	}
	if len(rs) == 0 { // also once the session is closed
		p.mu.Unlock()
		return
	}
	p.refuses.Add(1)
	defer p.refuses.Done()
	p.settled()
	p.mu.Unlock()
	p.report(rs)
}

// deniedSubject is what the server says that may not be published to.
func deniedSubject(err error) (subject string, denied bool) {
	_, rest, ok := strings.Cut(err.Error(), `Publish to "`)
	subject, _, _ = strings.Cut(rest, `"`)
	return subject, ok && errors.Is(err, client.ErrPermissionViolation)
}

// answer is called for each reply of the server, one after the other.
func (p *producer) answer(m *client.Msg) {
	if seq, err := strconv.ParseUint(strings.TrimPrefix(m.Subject, p.inbox), 36, 64); err == nil {
		r := pubsub.Result{Seq: seq, Fate: pubsub.FateAccepted}
		stored, err := parseAck(m)
		if f, mine := p.take(seq); mine {
			if err != nil {
				r.Fate, r.Err = pubsub.FateRefused, err
				if errors.Is(err, errNoStream) {
					p.d.forget()
				}
			} else {
				r.Pos = pubsub.NewPosition(positionKind, int64(stored), 0, f.store)
			}
			p.told = append(p.told, r)
		}
	}
	if more, _, err := p.sub.Pending(); len(p.told) > 0 && (err != nil || more <= 1 || len(p.told) >= 256) { // this one is still counted
		p.report(p.told)
		p.told = p.told[:0]
	}
}

// parseAck reads a publish acknowledgement.
func parseAck(m *client.Msg) (seq uint64, err error) {
	if len(m.Data) == 0 {
		return 0, errNoStream // no responders: the stream is gone, or has no leader at the moment
	}
	if _, rest, ok := bytes.Cut(m.Data, []byte(`"seq":`)); ok && !bytes.Contains(m.Data, []byte(`"error"`)) {
		n := 0
		for n < len(rest) && '0' <= rest[n] && rest[n] <= '9' {
			seq = seq*10 + uint64(rest[n]-'0')
			n++
		}
		if n > 0 {
			return seq, nil
		}
	}
	var ack struct {
		Seq   uint64              `json:"seq"`
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &ack); err != nil {
		return 0, err
	}
	if ack.Error != nil {
		return 0, ack.Error
	}
	return ack.Seq, nil
}

// die ends the session: what has no answer may be stored or not.
func (p *producer) die(err error) {
	p.mu.Lock()
	if p.dead == nil {
		p.dead = err
	}
	var lost []pubsub.Result
	for seq := range p.pending {
		lost = append(lost, pubsub.Result{Seq: seq, Fate: pubsub.FateUnknown, Err: err})
	}
	clear(p.pending)
	p.settled()
	p.mu.Unlock()
	if len(lost) > 0 {
		p.report(lost)
	}
}

// Close implements pubsub.Producer.
func (p *producer) Close(ctx context.Context) error {
	p.writes.Close()
	quiet := make(chan struct{})
	p.mu.Lock()
	if len(p.pending) == 0 {
		close(quiet)
	} else {
		p.quiet = quiet
	}
	p.mu.Unlock()
	select {
	case <-quiet:
	case <-ctx.Done():
	}
	err := p.sub.Unsubscribe()
	<-p.ended // it waits for nothing but report
	if len(p.told) > 0 {
		p.report(p.told)
	}
	p.die(errGone)
	p.refuses.Wait()
	p.d.remove(p)
	if errors.Is(err, client.ErrConnectionClosed) || errors.Is(err, client.ErrBadSubscription) {
		err = nil
	}
	return err
}
