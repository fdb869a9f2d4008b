package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/omnibus-go/omnibus/internal/drivers"
	"github.com/omnibus-go/omnibus/pubsub"
)

const remakeTime = 30 * time.Second // a server that is restarted is there again

// consumersOf are those of a group, with the settings that they have.
func (d *driver) consumersOf(ctx context.Context, topic, group string) (all []*jetstream.ConsumerInfo, err error) {
	if _, err := d.connected(ctx); err != nil {
		return nil, err
	}
	info, err := d.stream(ctx, d.names.stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, says(pubsub.ErrNotFound, "there is no topic %q in the stream %q", topic, d.names.stream)
	}
	if err != nil {
		return nil, err
	}
	p := pubsub.Place{Topic: topic, Group: group}
	for lane := range int32(partsOf(info, topic)) {
		c, err := d.now().js.Consumer(ctx, d.names.stream, durable(p, lane))
		if errors.Is(err, jetstream.ErrConsumerNotFound) { // a seek that was cut off may have left others
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, c.CachedInfo())
		if !pinned(&c.CachedInfo().Config) { // its members compete: one consumer reads all partitions
			break
		}
	}
	if len(all) == 0 {
		return nil, says(pubsub.ErrNotFound, "there is no group %q of %q", group, topic)
	}
	return all, nil
}

func pinned(c *jetstream.ConsumerConfig) bool {
	return c.PriorityPolicy == jetstream.PriorityPolicyPinned
}

// Lag implements pubsub.Lagger: what no member has got, and what is not settled, retries included.
func (d *driver) Lag(ctx context.Context, topic, group string) (pubsub.Lag, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	all, err := d.consumersOf(ctx, topic, group)
	if err != nil {
		return pubsub.Lag{}, err
	}
	for _, c := range slices.Clip(all) { // its retries have a consumer of the same name
		own, err := d.now().js.Consumer(ctx, d.names.work(), c.Name)
		if err != nil {
			return pubsub.Lag{}, err
		}
		all = append(all, own.CachedInfo())
	}
	lag := pubsub.Lag{Kind: pubsub.LagExact}
	for _, info := range all {
		lag.Messages += int64(info.NumPending) + int64(info.NumAckPending)
	}
	return lag, nil
}

// Seek implements pubsub.Seeker. The consumers are made anew; a group that is seeked has no members that could miss them. After an error each
// partition stands where it stood or where it was to go, and Seek can be called again.
func (d *driver) Seek(ctx context.Context, topic, group string, to pubsub.Start) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	all, err := d.consumersOf(ctx, topic, group)
	if err != nil {
		return err
	}
	place := pubsub.Place{Topic: topic, Group: group}
	_, err = d.now().nc.RequestWithContext(ctx, d.names.member(place), nil)
	if err == nil {
		return says(pubsub.ErrConflict, "group %q of %q has members", group, topic)
	}
	if !errors.Is(err, client.ErrNoResponders) {
		return err
	}
	info, err := d.stream(ctx, d.names.stream)
	if err != nil {
		return err
	}
	have := all[0].Config
	spec := pubsub.SourceSpec{From: place, Start: to, Order: pubsub.OrderNone}
	if pinned(&have) {
		spec.Order = pubsub.OrderByKey
	}
	for _, c := range d.groupConsumers(info, spec) { // also one that a seek which was cut off has removed
		err := d.now().js.DeleteConsumer(ctx, d.names.stream, c.Durable)
		if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return err
		}
		anew := have // with what somebody may have set
		anew.Name, anew.Durable, anew.FilterSubject, anew.FilterSubjects = c.Durable, c.Durable, c.FilterSubject, c.FilterSubjects
		anew.DeliverPolicy, anew.OptStartSeq, anew.OptStartTime = c.DeliverPolicy, c.OptStartSeq, c.OptStartTime
		if err := d.remake(ctx, anew); err != nil {
			return err
		}
	}
	return nil
}

// remake makes a consumer that was removed, also when ctx has ended or the connection has: without it the group would begin at the end.
func (d *driver) remake(ctx context.Context, cfg jetstream.ConsumerConfig) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), remakeTime)
	defer cancel()
	for {
		at, err := d.connected(ctx)
		if err == nil {
			_, err = at.js.CreateConsumer(ctx, d.names.stream, cfg)
		}
		if err == nil {
			return nil
		}
		if _, final := classify(err); final || !pause(ctx) {
			return fmt.Errorf("the consumer %q was removed and cannot be made again, so that its group begins anew: subscribe with the Start that is wanted: %w", cfg.Durable, err)
		}
	}
}

// Browse implements pubsub.Browser.
func (d *driver) Browse(ctx context.Context, p pubsub.Place, from pubsub.Position) iter.Seq2[pubsub.Record, error] {
	return drivers.Walk(func(yield func(pubsub.Record) bool) error {
		if _, err := d.connected(ctx); err != nil {
			return err
		}
		return d.browse(ctx, p, from, yield)
	})
}

func (d *driver) browse(ctx context.Context, p pubsub.Place, from pubsub.Position, yield func(pubsub.Record) bool) error {
	c := jetstream.ConsumerConfig{
		AckPolicy: jetstream.AckNonePolicy, DeliverPolicy: jetstream.DeliverAllPolicy, MemoryStorage: true, InactiveThreshold: time.Minute,
	}
	store, stream := storeOf(p.Kind), d.names.stream
	if k, seq, _, in := from.Parts(); k == positionKind && in == store {
		c.DeliverPolicy, c.OptStartSeq = jetstream.DeliverByStartSequencePolicy, uint64(max(seq, 1))
	}
	if p.Kind == pubsub.PlaceMain {
		parts, err := d.partitions(ctx, p.Topic)
		if err != nil {
			if code, final := classify(err); code == pubsub.ErrUnroutable && final {
				return says(pubsub.ErrNotFound, "there is no topic %q in the stream %q", p.Topic, stream)
			}
			return err
		}
		c.FilterSubjects = filters(p.Topic, parts)
	} else {
		if store == storeWork {
			return d.browseWork(ctx, p, max(c.OptStartSeq, 1), yield)
		}
		stream = d.names.dead()
		c.FilterSubjects = []string{d.names.subject(p, "*")}
	}
	made, err := d.now().js.CreateConsumer(ctx, stream, c)
	if errors.Is(err, jetstream.ErrStreamNotFound) && p.Kind != pubsub.PlaceMain {
		return nil
	}
	if err != nil {
		return err
	}
	name := made.CachedInfo().Name
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = d.now().js.DeleteConsumer(ctx, stream, name) // else it ends after a minute
	}()
	var last uint64 // to be shown
	if made.CachedInfo().Cluster != nil {
		if last, err = d.lastIn(ctx, stream, c.FilterSubjects...); err != nil {
			return err
		}
	}
	heard, seen := time.Now(), max(c.OptStartSeq, 1)-1
	for left := int64(made.CachedInfo().NumPending); left > 0 || seen < last; {
		batch, err := made.FetchNoWait(256)
		if err != nil {
			return err
		}
		n := 0
		for m := range batch.Messages() {
			n++
			left--
			msg := &client.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()}
			meta, err := m.Metadata()
			if err != nil {
				return err
			}
			r := pubsub.Record{Topic: p.Topic, Pos: pubsub.NewPosition(positionKind, int64(meta.Sequence.Stream), 0, store)}
			if p.Kind == pubsub.PlaceMain {
				r.Topic = topicOf(msg.Subject)
			}
			r.Msg = decode(msg)
			if seen = meta.Sequence.Stream; !yield(r) || left <= 0 && seen >= last {
				return nil
			}
		}
		err = batch.Error()
		if n > 0 {
			heard = time.Now()
		} else if errors.Is(err, client.ErrNoResponders) && time.Since(heard) < dialTimeout && pause(ctx) { // the cluster does not know it everywhere yet
			continue
		}
		if err != nil {
			return err
		}
		if n > 0 {
			continue
		}
		if left > 0 || ctx.Err() != nil {
			return ctx.Err() // trimmed meanwhile
		}
		if time.Since(heard) > dialTimeout {
			return says(pubsub.ErrUnavailable, "a server of the cluster lacks messages of the stream %q that its leader has", stream)
		}
		now, err := d.lastIn(ctx, stream, c.FilterSubjects...)
		if err != nil {
			return err
		}
		last = min(last, now)
		pause(ctx)
	}
	return nil
}

// Purge implements pubsub.Purger.
func (d *driver) Purge(ctx context.Context, p pubsub.Place, upTo pubsub.Position) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	k, seq, _, in := upTo.Parts()
	if k != positionKind || in != storeDead || seq < 1 {
		return says(pubsub.ErrInvalid, "the dead letters of group %q of %q have no position %v", p.Group, p.Topic, upTo)
	}
	if _, err := d.connected(ctx); err != nil {
		return err
	}
	s, err := d.now().js.Stream(ctx, d.names.dead())
	if err != nil {
		return err
	}
	return s.Purge(ctx, jetstream.WithPurgeSubject(d.names.subject(p, "*")), jetstream.WithPurgeSequence(uint64(seq)+1))
}

// A wanted names a message of a stream: by its sequence, as the next one of a subject from there on, or as the last one of a subject.
type wanted struct {
	Seq    uint64 `json:"seq,omitempty"`
	NextBy string `json:"next_by_subj,omitempty"`
	LastBy string `json:"last_by_subj,omitempty"`
}

// get asks the leader of a stream for a message, and for what it has itself: the other servers of a cluster, which answer reads and have consumers too, may be behind
// what it has confirmed, and they say subject and sequence among the message's own headers, which somebody may have forged.
func (d *driver) get(ctx context.Context, stream string, w wanted) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	body, err := json.Marshal(w)
	if err != nil {
		return nil, err
	}
	return again(ctx, "message of the stream "+stream, func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
		m, err := d.now().nc.RequestWithContext(ctx, d.api("STREAM.MSG.GET."+stream), body)
		if err != nil {
			return nil, err
		}
		var answer struct {
			Error   *jetstream.APIError
			Message struct {
				Subject string
				Seq     uint64
				Hdrs    []byte
				Data    []byte
				Time    time.Time
			}
		}
		if err := json.Unmarshal(m.Data, &answer); err != nil {
			return nil, err
		}
		if answer.Error != nil {
			if answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound {
				return nil, jetstream.ErrMsgNotFound
			}
			return nil, answer.Error
		}
		got := answer.Message
		raw := &jetstream.RawStreamMsg{Subject: got.Subject, Sequence: got.Seq, Data: got.Data, Time: got.Time}
		if len(got.Hdrs) > 0 {
			raw.Header, err = client.DecodeHeadersMsg(got.Hdrs)
		}
		return raw, err
	})
}

// lastIn is the sequence of the last message that a stream has for some subjects, 0 if it has none.
func (d *driver) lastIn(ctx context.Context, stream string, subjects ...string) (last uint64, err error) {
	for _, subject := range subjects {
		m, err := d.get(ctx, stream, wanted{LastBy: subject})
		switch {
		case err == nil:
			last = max(last, m.Sequence)
		case !errors.Is(err, jetstream.ErrMsgNotFound):
			return 0, err
		}
	}
	return last, nil
}

// browseWork reads a place whose stream has no room for a second reader: message by message.
func (d *driver) browseWork(ctx context.Context, p pubsub.Place, seq uint64, yield func(pubsub.Record) bool) error {
	err := d.walk(ctx, d.names.work(), d.names.subject(p, "*"), seq, func(m *jetstream.RawStreamMsg) bool {
		r := pubsub.Record{Topic: p.Topic, Pos: pubsub.NewPosition(positionKind, int64(m.Sequence), 0, storeWork)}
		r.Msg = decode(&client.Msg{Header: m.Header, Data: m.Data})
		return yield(r)
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	return err
}

// walk reads what a stream has for a subject when it begins, from a sequence on: what comes meanwhile may come faster than it can be read one by one.
func (d *driver) walk(ctx context.Context, stream, subject string, seq uint64, f func(*jetstream.RawStreamMsg) bool) error {
	last, err := d.lastIn(ctx, stream, subject)
	for err == nil && seq <= last {
		var m *jetstream.RawStreamMsg
		m, err = d.get(ctx, stream, wanted{Seq: seq, NextBy: subject})
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
			return nil // removed meanwhile
		case err == nil && (m.Sequence > last || !f(m)):
			return nil
		case err == nil:
			seq = m.Sequence + 1
		}
	}
	return err
}
