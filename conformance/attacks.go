package conformance

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

// attacks are the properties of package security, each a kind of attack by somebody who can write to the broker.
func attacks() []Property {
	property := func(name, doc string, run func(*env)) Property {
		return Property{Name: "Security/" + name, Promises: []int{22}, Doc: doc, run: run}
	}
	gated := func(p Property) Property {
		p.Gate = redelivers()
		return p
	}
	return []Property{
		property("Altered", "What was altered, added, removed or swapped in what a signature covers is refused.", altered),
		property("OtherDestination", "What was signed for another topic or in another environment is refused, also by way of retries and dead letters.", otherDestination),
		property("Ambiguous", "Signatures that are cut, longer, or of ambiguous lengths are refused.", ambiguous),
		property("Replayed", "What was handled is not handled again though somebody sends it again, to another replica or after a restart.", replayed),
		property("ConfusedKeys", "A key serves its own suite only: none, unknown ones and those of others are refused.", confusedKeys),
		property("OtherProducer", "Who signs with a key of its own in another's name is refused.", otherProducer),
		property("CoveredTooLittle", "A signature that does not cover what it must, or covers it in disorder or twice, is refused.", coveredTooLittle),
		property("TwoSignatures", "A message with two signatures or two headers of encryption is refused.", twoSignatures),
		property("OtherSpelling", "Headers of the signature in another case, in another base64, or with something behind them are refused.", otherSpelling),
		property("Stripped", "A message without its signature, or without the header of its encryption, is refused.", stripped),
		property("CiphertextMoved", "A ciphertext that somebody has moved to another message, topic or signer is refused.", ciphertextMoved),
		property("RecipientsChanged", "A ciphertext with other wrapped keys, more recipients or another commitment is refused, signed or not.", recipientsChanged),
		property("NonceReuse", "Replicas that encrypt at the same time use no nonce and no data key twice.", nonceReuse),
		gated(property("Canary", "No plaintext of an encrypted message and no key is in topics, dead letters, events, errors or the log.", canary)),
		property("Flood", "Floods of unknown keys, too many recipients and a bomb for the decompressor are refused, and no KMS is asked because of them.", flood),
		gated(property("KMSDown", "While the KMS is away nothing is acked, counted, dead-lettered, handled or sent in plain text, and all goes on by itself.", kmsDown)),
		property("BrokerAdditions", "What brokers add to a message does not break its signature, and no handler sees it.", brokerAdditions),
		property("RevokedKey", "A revoked key is refused, whenever a message says that it was signed.", revokedKey),
	}
}

// simple tries alterations of a signed message, among so many that are genuine.
func (e *env) simple(genuine int, edits []alteration) {
	e.Helper()
	v, topic := e.vault(), e.topic("a")
	e.tryForgeries(forgeryTrial{
		topic: topic, produces: []pubsub.Middleware{v.sign("orders")}, consumes: []pubsub.Middleware{v.sign("")},
		forged: v.forge(topic, edits, v.sign("orders")), genuine: genuine,
	})
}

func setHeader(name, value string) func(m *pubsub.Message) {
	return func(m *pubsub.Message) { m.Headers.Set(name, value) }
}

// resign changes the text of the signature.
func resign(edit func(text string) string) func(m *pubsub.Message) {
	return func(m *pubsub.Message) { m.Headers.Set("omnisig", edit(m.Headers.Get("omnisig"))) }
}

// inPreamble changes what the signature says of itself.
func inPreamble(edit func(p string) string) func(m *pubsub.Message) {
	return resign(func(text string) string {
		front, back, _ := strings.Cut(text, ".")
		p, _ := base64.RawURLEncoding.DecodeString(front) // it was encoded a moment ago
		return base64.RawURLEncoding.EncodeToString([]byte(edit(string(p)))) + "." + back
	})
}

func instead(old, by string) func(string) string {
	return func(p string) string { return strings.Replace(p, old, by, 1) }
}

func altered(e *env) {
	forged := security.ErrForged
	e.simple(signedEnough, []alteration{
		{"another ID", forged, func(m *pubsub.Message) { m.ID += "x" }},
		{"another type", forged, func(m *pubsub.Message) { m.Type = "order.paid" }},
		{"another key", forged, func(m *pubsub.Message) { m.Key = "key-1" }},
		{"another content type", forged, func(m *pubsub.Message) { m.ContentType = "text/html" }},
		{"another time", forged, func(m *pubsub.Message) { m.Time = m.Time.Add(-1e9) }},
		{"another payload", forged, func(m *pubsub.Message) { m.Payload = []byte("A forged payload") }},
		{"an empty payload", forged, func(m *pubsub.Message) { m.Payload = []byte{} }},
		{"no payload", forged, func(m *pubsub.Message) { m.Payload = nil }},
		{"another value of a header", forged, setHeader("tenant", "evil")},
		{"an empty header", forged, setHeader("tenant", "")},
		{"a header less", forged, func(m *pubsub.Message) { m.Headers.Del("tenant") }},
		{"an empty header less", forged, func(m *pubsub.Message) { m.Headers.Del("region") }},
		{"a header twice", forged, func(m *pubsub.Message) { m.Headers.Add("tenant", "evil") }},
		{"values swapped", forged, func(m *pubsub.Message) {
			m.Headers[0].Value, m.Headers[1].Value = m.Headers[1].Value, m.Headers[0].Value
		}},
		{"a source added", forged, setHeader("source", "/evil")},
		{"type and content type swapped", forged, func(m *pubsub.Message) { m.Type, m.ContentType = m.ContentType, m.Type }},
	})
}

func ambiguous(e *env) {
	malformed := security.ErrMalformed
	e.simple(signedFew, []alteration{
		{"a signature that is cut", security.ErrForged, resign(func(s string) string { return s[:len(s)-2] })},
		{"a signature that is longer", security.ErrForged, resign(func(s string) string { return s + "AAAA" })},
		{"a payload that is longer", security.ErrForged, func(m *pubsub.Message) { m.Payload = append(m.Payload, 0) }},
		{"a payload that is cut", security.ErrForged, func(m *pubsub.Message) { m.Payload = m.Payload[:3] }},
		{"a byte of the ID in the type", security.ErrForged, func(m *pubsub.Message) { m.Type, m.ID = m.ID[len(m.ID)-1:]+m.Type, m.ID[:len(m.ID)-1] }},
		{"a longer preamble", malformed, inPreamble(func(p string) string { return p + "\x00" })},
		{"a shorter preamble", malformed, inPreamble(func(p string) string { return p[:len(p)-1] })},
		{"a length too long", malformed, inPreamble(instead("\x06tenant", "\x46tenant"))},
		{"a producer in the name of its key", security.ErrUnknownKey, inPreamble(instead("\x08orders-1\x06orders", "\x0forders-1\x06orders\x00"))},
	})
}

func twoSignatures(e *env) {
	twice := func(name, value string) func(m *pubsub.Message) {
		return func(m *pubsub.Message) {
			if value == "" {
				value = m.Headers.Get(name)
			}
			m.Headers.Add(name, value)
		}
	}
	e.simple(signedFew, []alteration{
		{"the same signature twice", security.ErrMalformed, twice("omnisig", "")},
		{"another signature behind it", security.ErrMalformed, twice("omnisig", "AAAA.AAAA")},
		{"another signature before it", security.ErrMalformed, func(m *pubsub.Message) {
			m.Headers = append(pubsub.Headers{{Name: "omnisig", Value: "AAAA.AAAA"}}, m.Headers...)
		}},
		{"two headers of encryption", security.ErrMalformed, func(m *pubsub.Message) { m.Headers.Add("omnienc", "x"); m.Headers.Add("omnienc", "x") }},
	})
}

func otherSpelling(e *env) {
	e.simple(signedFew, []alteration{
		{"a signature in upper case alone", security.ErrMalformed, func(m *pubsub.Message) {
			s := m.Headers.Get("omnisig")
			m.Headers.Del("omnisig")
			m.Headers.Add("OMNISIG", s)
		}},
		{"a signature in another case beside it", security.ErrMalformed, func(m *pubsub.Message) { m.Headers.Add("OmniSig", m.Headers.Get("omnisig")) }},
		{"padding", security.ErrMalformed, resign(func(s string) string { return s + "==" })},
		{"a newline", security.ErrMalformed, resign(func(s string) string { return s + "\n" })},
		{"the alphabet of others", security.ErrMalformed, resign(func(s string) string { return s[:len(s)-2] + "+/" })},
		{"bits that count for nothing", security.ErrMalformed, resign(func(s string) string { return s[:len(s)-1] + string(rune(s[len(s)-1]+1)) })},
		{"a part more", security.ErrMalformed, resign(func(s string) string { return s + ".AAAA" })},
		{"an empty signature behind it", security.ErrMalformed, resign(func(s string) string { return s + "~" })},
	})
}

func coveredTooLittle(e *env) {
	v, topic := e.vault(), e.topic("a")
	strict := e.guard(security.Sign(security.SignOptions{Keys: v.ring, Require: []string{"tenant"}}))
	forged := v.forge(topic, []alteration{
		{"names in disorder", security.ErrMalformed, inPreamble(instead("\x06region\x06tenant", "\x06tenant\x06region"))},
		{"a name twice", security.ErrMalformed, inPreamble(instead("\x06region\x06tenant", "\x06tenant\x06tenant"))},
		{"a name in upper case", security.ErrMalformed, inPreamble(instead("\x06tenant", "\x06TENANT"))},
		{"a name less", security.ErrForged, inPreamble(instead("\x02\x06region\x06tenant", "\x01\x06region"))},
	}, v.sign("orders"))
	bare := pubsub.Message{ID: e.run + "-bare", Type: "order.placed", Key: "key-0", Payload: []byte("without a tenant")}
	forged = append(forged, forgery{"a signature that covers no tenant", e.wire(topic, bare, v.sign("orders")), security.ErrUncovered})
	e.tryForgeries(forgeryTrial{topic: topic, produces: []pubsub.Middleware{v.sign("orders")}, consumes: []pubsub.Middleware{strict}, forged: forged})
}

func confusedKeys(e *env) {
	v, topic := e.vault(), e.topic("a")
	unknown := security.ErrUnknownKey
	forged := v.forge(topic, []alteration{
		{"the suite none", unknown, inPreamble(instead("\x07ed25519", "\x04none"))},
		{"no suite", unknown, inPreamble(instead("\x07ed25519", "\x00"))},
		{"an unknown suite", unknown, inPreamble(instead("\x07ed25519", "\x03rsa"))},
		{"the suite of another key", unknown, inPreamble(instead("\x07ed25519", "\x04p256"))},
		{"the key of another suite", unknown, inPreamble(instead("\x08orders-1", "\x08ledger-1"))},
		{"a key that wraps", unknown, inPreamble(instead("\x08orders-1\x06orders", "\x09billing-1\x06orders"))},
	}, v.sign("orders"))
	// what everybody knows of the key, as the secret of another suite
	public, err := v.all[0].Public()
	e.must(err, "take the public half")
	text, err := security.EncodeKeys(public)
	e.must(err, "encode")
	keys, err := security.DecodeKeys([]byte(strings.NewReplacer(`"ed25519"`, `"hmac-sha256"`, `"public"`, `"private"`).Replace(string(text))))
	e.must(err, "decode")
	forged = append(forged, v.forge(topic, asIs("a public key as a secret", unknown), security.Sign(security.SignOptions{Keys: v.keyring(keys...), Producer: "orders"}))...)
	e.tryForgeries(forgeryTrial{topic: topic, produces: []pubsub.Middleware{v.sign("orders")}, consumes: []pubsub.Middleware{v.sign("")}, forged: forged})
}

func otherProducer(e *env) {
	v, topic := e.vault(), e.topic("a")
	// ledger has its key, and says that it is orders
	text, err := security.EncodeKeys(v.all[1])
	e.must(err, "encode")
	keys, err := security.DecodeKeys([]byte(strings.Replace(string(text), `"ledger"`, `"orders"`, 1)))
	e.must(err, "decode")
	posing := security.Sign(security.SignOptions{Keys: v.keyring(keys...), Producer: "orders"})
	forged := v.forge(topic, asIs("ledger in the name of orders", security.ErrWrongProducer), posing)
	policy := &security.Policy{Publish: map[string][]security.Grant{"orders": {{Topics: []string{">"}, Types: []string{">"}}}}, Consume: map[string][]string{"billing": {">"}}}
	own := v.forge(topic, asIs("ledger, which may not publish this", security.ErrDenied), v.sign("ledger"))
	e.tryForgeries(forgeryTrial{
		topic: topic, produces: []pubsub.Middleware{v.sign("orders")}, consumes: []pubsub.Middleware{v.sign(""), e.guard(security.Access("billing", policy))},
		forged: append(forged, own...),
	})
}

func stripped(e *env) {
	e.simple(signedFew, []alteration{
		{"a message without its signature", security.ErrUnsigned, func(m *pubsub.Message) { m.Headers.Del("omnisig") }},
		{"a message without any header", security.ErrUnsigned, func(m *pubsub.Message) { m.Headers = nil }},
	})
	v, topic := e.vault(), e.topic("b")
	plain := v.forge(topic, asIs("a message that was signed only", security.ErrUnencrypted), v.sign("orders"))
	e.tryForgeries(forgeryTrial{
		topic: topic, produces: []pubsub.Middleware{v.sign("orders"), v.encrypt("orders")}, consumes: []pubsub.Middleware{v.sign(""), v.encrypt("")},
		forged: append(plain, v.forge(topic, []alteration{
			{"a message without its signature", security.ErrUnsigned, func(m *pubsub.Message) { m.Headers.Del("omnisig") }},
			{"a message without its encryption", security.ErrForged, func(m *pubsub.Message) { m.Headers.Del("omnienc") }},
			{"a message without both", security.ErrUnsigned, func(m *pubsub.Message) { m.Headers.Del("omnisig"); m.Headers.Del("omnienc") }},
		}, v.sign("orders"), v.encrypt("orders"))...),
	})
}

func revokedKey(e *env) {
	v, topic := e.vault(), e.topic("a")
	old, err := security.GenerateKey(security.Ed25519, "orders-0", "orders")
	e.must(err, "make a key")
	thief := security.Sign(security.SignOptions{Keys: v.keyring(old), Producer: "orders"})
	early := v.forge(topic, asIs("a message of before the key was revoked", security.ErrUnknownKey), thief) // as one that says so
	e.must(v.ring.Replace(append(v.all, old.With(security.Revoked))...), "revoke a key")
	late := v.forge(topic, asIs("a message of a revoked key", security.ErrUnknownKey), thief)
	e.tryForgeries(forgeryTrial{topic: topic, produces: []pubsub.Middleware{v.sign("orders")}, consumes: []pubsub.Middleware{v.sign("")}, forged: append(early, late...)})
}

func otherDestination(e *env) {
	v, acme, other := e.vault(), e.topic("acme.orders"), e.topic("other.orders")
	staging := e.vault() // the same names, other keys
	var kept []pubsub.Record
	if e.caps.Redelivery { // what was signed for acme, failed once, is handled again there, and lies in its dead letters in the end
		p, l := e.openWith(&pubsub.Options{Use: []pubsub.Middleware{v.sign("")}}), e.ledger()
		w := e.openWith(&pubsub.Options{Use: []pubsub.Middleware{v.sign("orders")}})
		s := e.sub(acme, "g")
		s.Retry = pubsub.Policy{MaxAttempts: 2, Delays: []time.Duration{20 * time.Millisecond}}
		e.subscribe(p, s, l.handler(p, "g", onFails(fails)))
		l.mustPublish(w, acme, l.typed(30, 3)...)
		m := l.typed(1, 1)[0]
		m.Type = "fails"
		l.mustPublish(w, acme, m)
		l.excuse(m.ID)
		kept = e.wantDead(p, acme, "g", "max-attempts", 1)
		e.wantCalls(l, []pubsub.Message{m}, 2)
		l.await("g")
		e.must(p.Close(), "close")
		l.verify()
	}
	wrong := security.ErrWrongDestination
	forged := v.forge(acme, asIs("what was signed for another topic", wrong), v.sign("orders"))
	const copied = "what was signed for another topic, in a copy that says it is of that"
	if e.caps.Tiers {
		forged = append(forged, v.forge(acme, asIs(copied, wrong), v.sign("orders"))...)
	}
	for _, r := range kept {
		m := r.Msg.Clone()
		m.Headers = slices.DeleteFunc(m.Headers, func(h pubsub.Header) bool { return strings.HasPrefix(h.Name, "omnibus-dlq-") })
		forged = append(forged, forgery{"a dead letter of another topic", m, wrong})
	}
	forged = append(forged, v.forge(other, asIs("what was signed in another environment", security.ErrForged), staging.sign("orders"))...)
	e.tryForgeries(forgeryTrial{
		topic: other, produces: []pubsub.Middleware{v.sign("orders")}, consumes: []pubsub.Middleware{v.sign("")}, forged: forged,
		says: acme,
		places: func(f forgery) pubsub.Place {
			if f.what == copied {
				return pubsub.Place{Topic: other, Group: "g", Kind: pubsub.PlaceRetry, Tier: pubsub.Tiers()[0]}
			}
			if e.caps.Redelivery && f.why == wrong { // where the group's retries come from
				return pubsub.Place{Topic: other, Group: "g", Kind: pubsub.PlaceRetry}
			}
			return pubsub.Place{Topic: other}
		},
	})
}

func brokerAdditions(e *env) {
	v, topic, l := e.vault(), e.topic("a"), e.ledger()
	p, w := e.openWith(&pubsub.Options{Use: []pubsub.Middleware{v.sign("")}}), e.open()
	genuine := l.handler(p, "g", nil)
	e.subscribe(p, e.sub(topic, "g"), func(ctx context.Context, d *pubsub.Delivery) error {
		for _, h := range d.Headers {
			if h.Name != "tenant" && h.Name != "region" {
				e.Errorf("a handler sees the header %q of message %s, which nobody has signed", h.Name, d.ID)
			}
		}
		if d.Headers.Get("tenant") != "acme" || d.Headers.Get("region") != "eu" {
			e.Errorf("message %s comes with the headers %v", d.ID, d.Headers)
		}
		return genuine(ctx, d)
	})
	additions := pubsub.Headers{
		{Name: "x-death", Value: "1"}, {Name: "x-first-death-reason", Value: "expired"}, {Name: "x-delivery-count", Value: "7"}, {Name: "Nats-Sequence", Value: "7"},
		{Name: "Nats-Time-Stamp", Value: "now"}, {Name: "Tenant", Value: "evil"}, {Name: "role", Value: "admin"}, {Name: "role", Value: "root"},
	}
	for i, m := range l.typed(signedEnough, 3) {
		m = e.wire(topic, m, v.sign("orders"))
		if i > 30 {
			m.Headers = slices.Concat(additions[:i%len(additions)], m.Headers, additions[i%len(additions):])
		}
		l.mustPublish(w, topic, m)
	}
	l.await("g")
	e.must(p.Close(), "close")
	l.verify()
}

func replayed(e *env) {
	v, topic, l := e.vault(), e.topic("a"), e.ledger()
	store := middleware.NewDedupStore(0) // what replicas share
	var replays atomic.Int64
	replica := func() *process {
		guard := security.Replay(security.ReplayOptions{Store: store, OnReplay: func(*pubsub.Delivery) { replays.Add(1) }})
		return e.openWith(&pubsub.Options{Use: []pubsub.Middleware{v.sign(""), e.guard(guard)}})
	}
	join := func(p *process) {
		s := e.sub(topic, "g")
		s.Order = pubsub.OrderPerMember
		e.subscribe(p, s, l.handler(p, "g", nil))
	}
	attacker, p, q := e.open(), replica(), replica()
	join(p)
	join(q)
	msgs := l.typed(signedFew, 3)
	for i := range msgs {
		msgs[i] = e.wire(topic, msgs[i], v.sign("orders"))
	}
	l.mustPublish(attacker, topic, msgs...)
	l.await("g")
	sent := int64(0)
	again := func(ms []pubsub.Message) {
		for _, m := range ms {
			e.must(attacker.Publish(e.Context(), topic, m), "send %s again", m.ID)
		}
		sent += int64(len(ms))
		e.until(patience, func() bool { return replays.Load() >= sent }) // one that waits for the end of the first is none yet
	}
	again(msgs)
	e.must(p.Close(), "close")
	e.must(q.Close(), "close")
	join(replica()) // after a restart
	again(msgs[:20])
	for _, m := range l.typed(30, 3) {
		l.mustPublish(attacker, topic, e.wire(topic, m, v.sign("orders")))
	}
	l.await("g")
	l.verify()
}
