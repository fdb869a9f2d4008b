package conformance

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Properties of what is encrypted.

func ciphertextMoved(e *env) {
	v, topic := e.vault(), e.topic("a")
	other := e.wire(topic, pubsub.Message{ID: "other", Type: "order.placed", Payload: []byte("another payload")}, v.encrypt("orders"))
	closed := security.ErrUndecryptable
	forged := v.forge(topic, nil)
	for _, a := range []alteration{
		{"a ciphertext under another ID", closed, func(m *pubsub.Message) { m.ID += "x" }},
		{"a ciphertext under another type", closed, func(m *pubsub.Message) { m.Type = "order.paid" }},
		{"a ciphertext of another content type", closed, func(m *pubsub.Message) { m.ContentType = "text/html" }},
		{"the ciphertext and the header of another message", closed, func(m *pubsub.Message) {
			m.Payload = other.Payload
			m.Headers.Set("omnienc", other.Headers.Get("omnienc"))
		}},
	} { // moved by orders itself, whose signature is good
		moved := v.forge(topic, []alteration{a}, v.encrypt("orders"))[0]
		moved.msg = e.wire(topic, moved.msg, v.sign("orders"))
		forged = append(forged, moved)
	}
	stolen := v.forge(topic, asIs("a ciphertext that another has signed", closed), v.encrypt("orders"))[0]
	stolen.msg = e.wire(topic, stolen.msg, v.sign("ledger"))
	elsewhere := v.forge(e.topic("b"), asIs("a ciphertext for another topic", closed), v.encrypt("orders"))[0]
	elsewhere.msg = e.wire(topic, elsewhere.msg, v.sign("orders"))
	e.tryForgeries(forgeryTrial{
		topic: topic, produces: []pubsub.Middleware{v.sign("orders"), v.encrypt("orders")}, consumes: []pubsub.Middleware{v.sign(""), v.encrypt("")},
		forged: append(forged, stolen, elsewhere), genuine: signedEnough,
	})
}

func recipientsChanged(e *env) {
	v, topic := e.vault(), e.topic("a")
	layer := e.guard(security.Encrypt(security.EncryptOptions{Unsigned: true, Recipients: []security.KMS{v.kms}}))
	apart := security.Encrypt(security.EncryptOptions{Unsigned: true, Recipients: []security.KMS{v.kms}}) // has a data key of its own
	other := e.wire(topic, pubsub.Message{ID: "other", Payload: []byte("x")}, apart).Headers.Get("omnienc")
	const count, id, commit = 5 + 16 + 32, 5, 5 + 16
	inHeader := func(edit func(b []byte) []byte) func(m *pubsub.Message) {
		return func(m *pubsub.Message) {
			b, _ := base64.RawURLEncoding.DecodeString(m.Headers.Get("omnienc")) // it was encoded a moment ago
			m.Headers.Set("omnienc", base64.RawURLEncoding.EncodeToString(edit(b)))
		}
	}
	theirs, _ := base64.RawURLEncoding.DecodeString(other)
	closed, malformed := security.ErrUndecryptable, security.ErrMalformed
	e.tryForgeries(forgeryTrial{
		topic: topic, produces: []pubsub.Middleware{layer}, consumes: []pubsub.Middleware{layer},
		forged: v.forge(topic, []alteration{
			{"the wrapped key of another", closed, inHeader(func(b []byte) []byte { return append(b[:count], theirs[count:]...) })},
			{"another wrapped key with its commitment", closed, inHeader(func(b []byte) []byte { return append(b[:id], theirs[id:]...) })},
			{"another commitment", closed, inHeader(func(b []byte) []byte { b[commit]++; return b })},
			{"another name of the data key", closed, inHeader(func(b []byte) []byte { b[id]++; return b })},
			{"nobody it is wrapped for", malformed, inHeader(func(b []byte) []byte { return append(b[:count], 0) })},
			{"nine it is wrapped for", malformed, inHeader(func(b []byte) []byte {
				return append(append(b[:count], 9), slices.Repeat([]byte{1, 'k', 1, 'k', 0, 1, 'w'}, 9)...)
			})},
			{"a recipient that is not there", malformed, inHeader(func(b []byte) []byte { b[count]++; return b })},
			{"the header of another message", closed, setHeader("omnienc", other)},
		}, layer),
	})
	// signed, not even a recipient more is let through
	e.tryForgeries(forgeryTrial{
		topic: e.topic("signed"), produces: []pubsub.Middleware{v.sign("orders"), v.encrypt("orders")}, consumes: []pubsub.Middleware{v.sign(""), v.encrypt("")},
		forged: v.forge(e.topic("signed"), []alteration{
			{"a recipient added", security.ErrForged, inHeader(func(b []byte) []byte { b[count]++; return append(b, 1, 'k', 1, 'k', 0, 1, 'w') })},
		}, v.sign("orders"), v.encrypt("orders")),
	})
}

func nonceReuse(e *env) {
	const replicas = 3
	v, topic, l := e.vault(), e.topic("a"), e.ledger()
	var mu sync.Mutex
	nonces, deks := map[string]string{}, map[string]bool{}
	reader := e.open() // who only looks
	s := e.sub(topic, "g")
	s.Concurrency = 4
	e.subscribe(reader, s, func(ctx context.Context, d *pubsub.Delivery) error {
		header := d.Headers.Get("omnienc")
		mu.Lock()
		if first, again := nonces[string(d.Payload[:min(12, len(d.Payload))])]; again && first != d.ID {
			e.Errorf("messages %s and %s have the same nonce", first, d.ID)
		}
		nonces[string(d.Payload[:min(12, len(d.Payload))])], deks[header] = d.ID, true
		mu.Unlock()
		return l.handler(reader, "g", nil)(ctx, d)
	})
	var wg sync.WaitGroup
	for range replicas {
		layers := []pubsub.Middleware{v.sign("orders"), v.encrypt("orders")}
		w := e.open()
		msgs := l.typed(signedEnough/replicas, 3)
		for i := range msgs {
			msgs[i] = e.wire(topic, msgs[i], layers...)
		}
		wg.Go(func() { l.publish(w, topic, msgs...) })
	}
	wg.Wait()
	l.await("g")
	mu.Lock()
	defer mu.Unlock()
	if len(deks) != replicas || len(nonces) != signedEnough {
		e.Errorf("%d messages of %d replicas have %d data keys and %d nonces", signedEnough, replicas, len(deks), len(nonces))
	}
	l.verify()
}

// secretsOf are the private halves in a vault, as they might be printed.
func (v *vault) secrets() []string {
	v.e.Helper()
	text, err := security.EncodeKeys(v.all...)
	v.e.must(err, "encode")
	var file struct {
		Keys []struct {
			Private string `json:"private"`
		} `json:"keys"`
	}
	v.e.must(json.Unmarshal(text, &file), "decode")
	var all []string
	for _, k := range file.Keys {
		b, err := base64.RawURLEncoding.DecodeString(k.Private)
		v.e.must(err, "decode")
		all = append(all, k.Private, string(b), hex.EncodeToString(b), fmt.Sprintf("%d", b), base64.StdEncoding.EncodeToString(b))
	}
	return all
}

func canary(e *env) {
	const word = "canary-4711-in-the-payload"
	v, topic, l := e.vault(), e.topic("a"), e.ledger()
	x := &eavesdropper{e: e, secrets: append(v.secrets(), disguises(append([]string{word}, e.h.Secrets...))...)}
	opts := &pubsub.Options{
		Logger: slog.New(slog.NewTextHandler(x, &slog.HandlerOptions{Level: slog.LevelDebug - 4})),
		Use: []pubsub.Middleware{
			{Name: "observer", Observe: func(ev pubsub.Event) { x.err("an event", ev.Err) }}, v.sign("orders"), v.encrypt("orders"),
		},
	}
	p, reader := e.openWith(opts), e.open()
	s := e.sub(topic, "g")
	s.Retry = pubsub.Policy{MaxAttempts: 2, Delays: []time.Duration{20 * time.Millisecond}}
	seen := 0
	c := e.subscribe(p, s, l.handler(p, "g", func(ctx context.Context, d *pubsub.Delivery) error {
		if strings.Contains(string(d.Payload), word) {
			seen++
		}
		return onFails(fails)(ctx, d)
	}))
	e.subscribe(reader, e.sub(topic, "readers"), func(_ context.Context, d *pubsub.Delivery) error { // what lies on the broker
		x.read("a topic", fmt.Sprintf("%s %+v %q", d.Payload, d.Message, d.Headers))
		return nil
	})
	msgs := l.typed(signedEnough, 3)
	failing := 0
	for i := range msgs {
		msgs[i].Payload = []byte(word + " of " + msgs[i].ID)
		if i > 50 && i%20 == 0 {
			failing++
			msgs[i].Type = "fails"
		}
		l.mustPublish(p, topic, msgs[i])
		if msgs[i].Type == "fails" {
			l.excuse(msgs[i].ID)
		}
	}
	// what cannot be decrypted
	strange := v.forge(topic, asIs("strange", security.ErrUndecryptable), v.encrypt("orders"))[0]
	strange.msg.Payload = slices.Clone(strange.msg.Payload)
	strange.msg.Payload[20]++
	e.must(reader.Publish(e.Context(), topic, e.wire(topic, strange.msg, v.sign("orders"))), "publish what cannot be decrypted")
	x.err("the error of Publish", p.Publish(e.Context(), topic, pubsub.Message{ID: "x", Payload: []byte(word)})) // it has no type
	l.await("g")
	if !e.until(patience, func() bool { return len(e.dead(p, topic, "g")) == failing+1 }) {
		e.Errorf("%d messages are in the dead letters, want %d", len(e.dead(p, topic, "g")), failing+1)
	}
	for _, r := range e.dead(p, topic, "g") {
		x.read("a dead letter", fmt.Sprintf("%s %+v %q", r.Msg.Payload, *r.Msg, r.Msg.Headers))
	}
	x.err("the consumer's state", c.State().Reason)
	x.err("the error of Close", p.Close())
	if seen < signedEnough-failing {
		e.Fatalf(setupPrefix+"handlers have seen the canary %d times", seen)
	}
	l.verify()
}

func flood(e *env) {
	v, topic := e.vault(), e.topic("a")
	kms := &switchedKMS{KMS: v.kms}
	strangers := make([]pubsub.Middleware, 5)
	for i := range strangers {
		key, err := security.GenerateKey(security.Ed25519, fmt.Sprintf("stranger-%d", i), "orders")
		e.must(err, "make a key")
		strangers[i] = security.Sign(security.SignOptions{Keys: v.keyring(key), Producer: "orders"})
	}
	var forged []forgery
	for i := range 40 { // encrypted for billing by whoever could ask the KMS, each with a data key of its own
		own := v.encrypt("orders")
		forged = append(forged, v.forge(topic, asIs("one of many messages of unknown keys", security.ErrUnknownKey), strangers[i%len(strangers)], own)...)
	}
	forged = append(forged, v.forge(topic, []alteration{
		{"a signature of 5 KiB", security.ErrMalformed, resign(func(s string) string { return s + strings.Repeat("A", 5<<10) })},
		{"a header of encryption of 17 KiB", security.ErrMalformed, setHeader("omnienc", strings.Repeat("A", 17<<10))},
		{"nine signatures", security.ErrMalformed, resign(func(s string) string { return strings.Join(slices.Repeat([]string{s}, 9), "~") })},
	}, v.sign("orders"))...)
	e.tryForgeries(forgeryTrial{
		topic: topic, produces: []pubsub.Middleware{v.sign("orders"), v.encryptWith("orders", v.kms)},
		consumes: []pubsub.Middleware{v.sign(""), v.encryptWith("", kms)}, forged: forged,
	})
	if asked := kms.asked.Load(); asked != 1 {
		e.Errorf("the KMS was asked %d times for one data key and a flood of messages that nobody has signed", asked)
	}
	// a bomb of who may sign
	small, large := middleware.CompressWith(middleware.CompressOptions{Max: 1 << 20}), middleware.Compress(0)
	bomb := pubsub.Message{ID: e.run + "-bomb", Type: "order.placed", Key: "key-0", Payload: make([]byte, 8<<20)}
	topic = e.topic("bomb")
	e.tryForgeries(forgeryTrial{
		topic: topic, produces: []pubsub.Middleware{v.sign("orders"), large}, consumes: []pubsub.Middleware{v.sign(""), small},
		forged: []forgery{{what: "a bomb", msg: e.wire(topic, bomb, v.sign("orders"), large)}}, reason: "undecodable",
	})
}

func kmsDown(e *env) {
	const n = 20
	v, topic, l := e.vault(), e.topic("a"), e.ledger()
	kms := &switchedKMS{KMS: v.kms}
	p := e.openWith(&pubsub.Options{Use: []pubsub.Middleware{v.sign(""), v.encryptWith("", kms)}})
	w := e.openWith(&pubsub.Options{Use: []pubsub.Middleware{v.sign("orders"), v.encryptWith("orders", v.kms)}})
	s := e.sub(topic, "g")
	handle := l.handler(p, "g", nil)
	c := e.subscribe(p, s, func(ctx context.Context, d *pubsub.Delivery) error {
		if d.Attempt != 1 || !strings.HasPrefix(string(d.Payload), "payload of") {
			e.Errorf("a handler gets message %s in attempt %d with the payload %.20q", d.ID, d.Attempt, d.Payload)
		}
		return handle(ctx, d)
	})
	l.mustPublish(w, topic, l.typed(30, 3)...)
	l.await("g")
	kms.set(true)
	// another data key, which the consumer does not know yet
	next := e.openWith(&pubsub.Options{Use: []pubsub.Middleware{v.sign("orders"), v.encryptWith("orders", v.kms)}})
	before := kms.asked.Load()
	l.mustPublish(next, topic, l.typed(n, 3)...)
	// who cannot wrap sends nothing
	dark := e.openWith(&pubsub.Options{Use: []pubsub.Middleware{v.sign("orders"), v.encryptWith("orders", kms)}})
	for _, m := range l.typed(3, 3) {
		lost := l.note(m)
		err := dark.Publish(e.Context(), topic, m)
		l.tell(lost, err)
		if !errors.Is(err, errKMSAway) {
			e.Errorf("publishing while the KMS is away: %v, want its error", err)
		}
	}
	if !e.until(patience, func() bool { return kms.asked.Load() >= before+8 && errors.Is(c.State().Reason, errKMSAway) }) {
		e.Errorf("the KMS is away, was asked %d times, and the state is %v because of %v", kms.asked.Load()-before, c.State().Phase, c.State().Reason)
	}
	if virtual() {
		time.Sleep(30 * time.Second)
	}
	if got := l.handled("g"); got != 30 {
		e.Errorf("%d messages were handled, of which 30 were sent before the KMS was away", got)
	}
	if dead := len(e.dead(p, topic, "g")); dead > 0 {
		e.Errorf("%d messages are in the dead letters while the KMS is away", dead)
	}
	if e.caps.Lag == pubsub.LagExact {
		var lag pubsub.Lag
		e.until(patience, func() bool { // what was acked before may be committed later
			var err error
			lag, err = p.Lag(e.Context(), topic, "g")
			e.must(err, "lag")
			return lag.Messages <= n
		})
		if lag.Messages != n {
			e.Errorf("%d of %d messages are not acked while the KMS is away", lag.Messages, n)
		}
	}
	kms.set(false)
	l.mustPublish(next, topic, l.typed(30, 3)...)
	l.await("g")
	if dead := len(e.dead(p, topic, "g")); dead > 0 {
		e.Errorf("%d messages are in the dead letters after the KMS was away", dead)
	}
	l.verify()
}

func middlewareViewSigned(e *env) {
	v := e.vault()
	var mu sync.Mutex
	out, in := map[string]pubsub.Message{}, map[string]pubsub.Message{}
	view := pubsub.Middleware{
		Name: "view",
		Outgoing: func(_ context.Context, _ string, m *pubsub.Message) error {
			mu.Lock()
			defer mu.Unlock()
			out[m.ID] = m.Clone()
			return nil
		},
		Incoming: func(next pubsub.Handler) pubsub.Handler {
			return func(ctx context.Context, d *pubsub.Delivery) error {
				mu.Lock()
				in[d.ID] = d.Message.Clone()
				mu.Unlock()
				return next(ctx, d)
			}
		},
	}
	p := e.openWith(&pubsub.Options{Use: []pubsub.Middleware{v.sign("orders"), v.encrypt("orders"), view}})
	topic, l := e.topic("a"), e.ledger()
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", nil))
	msgs := l.messages(signedEnough, 5)
	texts := awkward()
	for i := range msgs {
		m := &msgs[i]
		s := texts[i%len(texts)]
		m.Type, m.ContentType = s, s
		m.Headers = pubsub.Headers{{Name: "b", Value: s}, {Name: strings.ToLower(s[:min(len(s), 200)]), Value: "x"}, {Name: "a", Value: ""}}
		if i%7 == 0 {
			m.TTL = time.Hour
		}
	}
	l.mustPublish(p, topic, msgs...)
	l.await("g")
	mu.Lock()
	defer mu.Unlock()
	for _, m := range msgs {
		e.wantSame(in[m.ID], out[m.ID])
	}
	l.verify()
}
