package conformance

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A vault has the keys of one environment: those that "orders" and "ledger" sign with, and the one that wraps for "billing".
type vault struct {
	e    *env
	all  []security.Key
	ring *security.Keyring
	kms  security.KMS // wraps for "billing"
}

func (e *env) vault() *vault {
	e.Helper()
	v := &vault{e: e}
	for _, k := range []struct {
		suite     security.Suite
		id, owner string
	}{{security.Ed25519, "orders-1", "orders"}, {security.P256, "ledger-1", "ledger"}, {security.AES256GCM, "billing-1", "billing"}} {
		key, err := security.GenerateKey(k.suite, k.id, k.owner)
		e.must(err, "make a key")
		v.all = append(v.all, key)
	}
	v.ring = v.keyring(v.all...)
	v.kms = v.ring.KMS("billing")
	if e.h.KMS != nil {
		own, err := e.h.KMS()
		if err != nil {
			e.Fatalf(setupPrefix+"the harness has no KMS: %v", err)
		}
		v.kms = own
	}
	return v
}

func (v *vault) keyring(keys ...security.Key) *security.Keyring {
	v.e.Helper()
	r, err := security.NewKeyring(keys...)
	v.e.must(err, "make a keyring")
	return r
}

// sign is the layer of a producer; of a consumer where who is "".
func (v *vault) sign(who string) pubsub.Middleware {
	return v.e.guard(security.Sign(security.SignOptions{Keys: v.ring, Producer: who}))
}

// encrypt is the layer of a producer; of a consumer where who is "".
func (v *vault) encrypt(who string) pubsub.Middleware {
	return v.encryptWith(who, v.kms)
}

func (v *vault) encryptWith(who string, kms security.KMS) pubsub.Middleware {
	opts := security.EncryptOptions{Producer: who, Unwrap: []security.KMS{kms}, Pause: kmsPause}
	if who != "" {
		opts.Recipients = opts.Unwrap
	}
	return v.e.guard(security.Encrypt(opts))
}

// guard breaks a layer as the mutant does.
func (e *env) guard(l pubsub.Middleware) pubsub.Middleware {
	if e.m != nil && e.m.guard != nil {
		return e.m.guard(l)
	}
	return l
}

// wire is what a producer with these layers sends.
func (e *env) wire(topic string, m pubsub.Message, layers ...pubsub.Middleware) pubsub.Message {
	e.Helper()
	m = m.Clone()
	if m.Time.IsZero() { // as the engine has it before any layer sees a message
		m.Time = time.Now().Round(0).UTC()
	}
	for _, l := range slices.Backward(layers) {
		e.must(l.Err, "use the layer %s", l.Name)
		if l.Outgoing != nil {
			e.must(l.Outgoing(e.Context(), topic, &m), "pass a message through the layer %s", l.Name)
		}
	}
	return m
}

// typed makes messages of a ledger that can be signed.
func (l *ledger) typed(n, keys int) []pubsub.Message {
	msgs := l.messages(n, keys)
	for i := range msgs {
		msgs[i].Type = "order.placed"
		msgs[i].Headers = pubsub.Headers{{Name: "tenant", Value: "acme"}, {Name: "region", Value: "eu"}}
	}
	return msgs
}

// A forgery is a message that nobody must handle.
type forgery struct {
	what string
	msg  pubsub.Message
	why  security.Refusal // 0 = refused by a layer of package middleware
}

// forge lets somebody who can write to the broker do something to messages that producers with these layers have sent to a topic.
func (v *vault) forge(topic string, edits []alteration, layers ...pubsub.Middleware) (all []forgery) {
	v.e.Helper()
	for _, a := range edits {
		m := pubsub.Message{
			ID: fmt.Sprintf("%s-forged-%d", v.e.run, v.e.ids.Add(1)), Type: "order.placed", Key: "key-0", ContentType: "text/plain", Payload: []byte("a forged payload"),
			Headers: pubsub.Headers{{Name: "tenant", Value: "acme"}, {Name: "region", Value: ""}},
		}
		m = v.e.wire(topic, m, layers...)
		a.edit(&m)
		all = append(all, forgery{a.what, m, a.why})
	}
	return all
}

// An alteration is what somebody does to a message, and how it is found out.
type alteration struct {
	what string
	why  security.Refusal
	edit func(m *pubsub.Message)
}

// asIs is for what is forged as it is.
func asIs(what string, why security.Refusal) []alteration {
	return []alteration{{what, why, func(*pubsub.Message) {}}}
}

// kmsPause is how long a consumer rests for which no KMS answers.
const kmsPause = 300 * time.Millisecond

// Signatures cost as much as all else, and with the race detector far more: so many messages are enough for a fault that strikes one in a hundred of them, and so
// many for another.
const (
	signedEnough = 150
	signedFew    = 60
)

// A forgeryTrial has what is forged lie among what is genuine. A consumer with these layers handles what is genuine, and nothing else.
type forgeryTrial struct {
	topic    string
	produces []pubsub.Middleware // the layers of who sends what is genuine
	consumes []pubsub.Middleware
	forged   []forgery
	places   func(f forgery) pubsub.Place // where what is forged is put; nil = it is published
	says     string                       // the topic that is named in a copy which is put in a tier
	reason   string                       // of dead letters; "" = verification
	genuine  int                          // messages; 0 = signedFew
}

func (e *env) tryForgeries(c forgeryTrial) *process {
	e.Helper()
	p, w, attacker, l := e.openWith(&pubsub.Options{Use: c.consumes}), e.openWith(&pubsub.Options{Use: c.produces}), e.open(), e.ledger()
	what := map[string]string{}
	for _, f := range c.forged {
		what[f.msg.ID] = f.what
	}
	genuine := l.handler(p, "g", nil)
	e.subscribe(p, e.sub(c.topic, "g"), func(ctx context.Context, d *pubsub.Delivery) error {
		if name, forged := what[d.ID]; forged || !l.knows(d.ID) {
			e.Errorf("a handler got a message that somebody has forged: %s", name)
			return nil
		}
		return genuine(ctx, d)
	})
	n := cmp.Or(c.genuine, signedFew)
	l.mustPublish(w, c.topic, l.typed(n/2, 3)...)
	for _, f := range c.forged {
		e.must(e.put(attacker, c, f), "send what is forged (%s)", f.what)
	}
	l.mustPublish(w, c.topic, l.typed(n/2, 3)...)
	l.await("g")
	if e.caps.Redelivery {
		e.wantKeptAsForged(p, c)
	}
	e.must(p.Close(), "close")
	l.verify()
	return w
}

// put sends what is forged.
func (e *env) put(attacker *process, c forgeryTrial, f forgery) error {
	if c.places == nil {
		return attacker.Publish(e.Context(), c.topic, f.msg)
	}
	to, fate := c.places(f), make(chan error, 1)
	if to.Tier > 0 {
		return e.putInTier(to, c.says, f.msg)
	}
	attacker.Resend(e.Context(), to, f.msg, pubsub.Dedup{}, func(_ pubsub.Receipt, err error) { fate <- err })
	return <-fate
}

// putInTier writes a copy as the engine does of what waits for a retry: here, one that is due.
func (e *env) putInTier(to pubsub.Place, topic string, m pubsub.Message) error {
	d, err := e.h.Driver(e.Context())
	if err != nil {
		return err
	}
	defer func() { e.must(d.Close(e.Context()), "close") }()
	fate := make(chan error, 1)
	p, err := d.OpenProducer(e.Context(), pubsub.ProducerSpec{MaxPending: 1}, func(rs []pubsub.Result) { fate <- rs[0].Err })
	if err != nil {
		return err
	}
	defer func() { e.must(p.Close(e.Context()), "close") }()
	now := time.Now().UTC().Format(time.RFC3339Nano)
	m.Headers = append(slices.Clip(m.Headers), pubsub.Header{Name: "omnibus-retry", Value: now + " " + now + " " + topic + " - 0s 0"})
	if _, err := p.Send(e.Context(), []pubsub.Out{{To: to, Msg: &m}}); err != nil {
		return err
	}
	return <-fate
}

// wantKeptAsForged asserts that the dead letters have what was refused, as it came, with a reason that says no more than it may.
func (e *env) wantKeptAsForged(p *process, c forgeryTrial) {
	e.Helper()
	reason := c.reason
	if reason == "" {
		reason = "verification"
	}
	dead := map[string][]pubsub.Record{}
	for _, r := range e.wantDead(p, c.topic, "g", reason, len(c.forged)) {
		dead[r.Msg.ID] = append(dead[r.Msg.ID], r)
	}
	for _, f := range c.forged {
		rest := dead[f.msg.ID]
		at := slices.IndexFunc(rest, func(r pubsub.Record) bool {
			own := slices.DeleteFunc(slices.Clone(r.Msg.Headers), func(h pubsub.Header) bool { return strings.HasPrefix(h.Name, "omnibus-dlq-") })
			return bytes.Equal(r.Msg.Payload, f.msg.Payload) && (r.Msg.Payload == nil) == (f.msg.Payload == nil) && slices.Equal(own, f.msg.Headers) &&
				(f.why == 0 || r.Msg.Headers.Get("omnibus-dlq-error") == f.why.Error())
		})
		if at < 0 {
			e.Errorf("of %d dead letters with its ID none is what was forged (%s), as it came and refused as %q", len(rest), f.what, f.why.Error())
			continue
		}
		dead[f.msg.ID] = slices.Delete(rest, at, at+1)
	}
}

// A switchedKMS is a KMS over the network, as it were, that can be away. It counts what it is asked.
type switchedKMS struct {
	security.KMS
	asked atomic.Int64

	mu   sync.Mutex
	away bool
}

var errKMSAway = errors.New("conformance: the KMS does not answer")

func (k *switchedKMS) set(away bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.away = away
}

func (k *switchedKMS) answer() error {
	k.asked.Add(1)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.away {
		return errKMSAway
	}
	return nil
}

func (k *switchedKMS) Wrap(ctx context.Context, kek string, dek, binding []byte) ([]byte, error) {
	if err := k.answer(); err != nil {
		return nil, err
	}
	return k.KMS.Wrap(ctx, kek, dek, binding)
}

func (k *switchedKMS) Unwrap(ctx context.Context, kek string, wrapped, binding []byte) ([]byte, error) {
	if err := k.answer(); err != nil {
		return nil, err
	}
	return k.KMS.Unwrap(ctx, kek, wrapped, binding)
}
