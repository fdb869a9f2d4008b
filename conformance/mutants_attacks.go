package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

// attackMutants have a layer that lets an attack through, or an adapter that breaks what is genuine.
func attackMutants() []Mutant {
	return []Mutant{
		{"handles what is not what was signed", "Security/Altered", forgives("sign", security.ErrForged)},
		{"loses every 100th message", "Security/Altered", func() *mutation { return shows(recordLose, 100) }},
		{"handles what was signed for another topic", "Security/OtherDestination", forgives("sign", security.ErrWrongDestination)},
		{"handles what was signed in another environment", "Security/OtherDestination", forgives("sign", security.ErrForged)},
		{"handles signatures that are cut", "Security/Ambiguous", forgives("sign", security.ErrForged)},
		{"handles unreadable signatures", "Security/Ambiguous", forgives("sign", security.ErrMalformed)},
		{"remembers nothing that it has handled", "Security/Replayed", func() *mutation { return without("replay") }},
		{"shows every 100th message twice", "Security/Replayed", func() *mutation {
			m := shows(recordTwice, 100)
			m.guard = without("replay").guard
			return m
		}},
		{"handles what has an unknown key", "Security/ConfusedKeys", forgives("sign", security.ErrUnknownKey)},
		{"handles what another has signed in a producer's name", "Security/OtherProducer", forgives("sign", security.ErrWrongProducer)},
		{"lets a producer publish what it may not", "Security/OtherProducer", forgives("access", security.ErrDenied)},
		{"does not ask what a signature covers", "Security/CoveredTooLittle", forgives("sign", security.ErrUncovered)},
		{"takes the first of two signatures", "Security/TwoSignatures", forgives("sign", security.ErrMalformed)},
		{"is lenient with the spelling of signatures", "Security/OtherSpelling", forgives("sign", security.ErrMalformed)},
		{"handles what is not signed", "Security/Stripped", forgives("sign", security.ErrUnsigned)},
		{"handles what is not encrypted", "Security/Stripped", forgives("encrypt", security.ErrUnencrypted)},
		{"handles ciphertexts that do not open", "Security/CiphertextMoved", forgives("encrypt", security.ErrUndecryptable)},
		{"loses every 90th message that is encrypted", "Security/CiphertextMoved", func() *mutation { return shows(recordLose, 90) }},
		{"handles what is encrypted with another key", "Security/RecipientsChanged", forgives("encrypt", security.ErrUndecryptable)},
		{"uses every 100th nonce twice", "Security/NonceReuse", noncesAgain},
		{"sends every 100th message in plain text", "Security/Canary", func() *mutation { return inPlain(every(100)) }},
		{"says in its error what it has decrypted", "Security/Canary", func() *mutation {
			return guards("encrypt", func(m *mutation, next pubsub.Handler, h pubsub.Handler) pubsub.Handler {
				return func(ctx context.Context, d *pubsub.Delivery) error {
					err := h(ctx, d)
					if err != nil {
						return fmt.Errorf("handle %s: %w", d.Payload, err)
					}
					return nil
				}
			})
		}},
		{"handles floods of unknown keys", "Security/Flood", forgives("sign", security.ErrUnknownKey)},
		{"gives up what cannot be decrypted while the KMS is away", "Security/KMSDown", awayIs(func(err error, _ func() error) error { return pubsub.Permanent(errors.New(err.Error())) })},
		{"counts it as a failure that the KMS is away", "Security/KMSDown", awayIs(func(err error, _ func() error) error { return errors.New(err.Error()) })},
		{"handles ciphertexts while the KMS is away", "Security/KMSDown", awayIs(func(_ error, next func() error) error { return next() })},
		{"sends in plain text while the KMS is away", "Security/KMSDown", func() *mutation { return inPlain(nil) }},
		{"shows handlers what nobody has signed", "Security/BrokerAdditions", func() *mutation {
			return guards("sign", func(_ *mutation, next, _ pubsub.Handler) pubsub.Handler {
				return func(ctx context.Context, d *pubsub.Delivery) error {
					d.Headers = slices.DeleteFunc(slices.Clone(d.Headers), func(h pubsub.Header) bool { return h.Name == "omnisig" })
					return next(ctx, d)
				}
			})
		}},
		{"loses a header of every 100th message", "Security/BrokerAdditions", func() *mutation {
			strike := every(100)
			return damages(func(m *pubsub.Message) {
				if strike() {
					m.Headers.Del("tenant")
				}
			})
		}},
		{"asks a revoked key whether it is", "Security/RevokedKey", forgives("sign", security.ErrUnknownKey)},
		{"trims the values of headers that are signed", "Fidelity/MiddlewareViewSigned", func() *mutation {
			return damages(func(m *pubsub.Message) {
				m.Headers = slices.Clone(m.Headers)
				for i := range m.Headers {
					m.Headers[i].Value = strings.TrimSpace(m.Headers[i].Value)
				}
			})
		}},
		{"changes a byte of every 100th message", "Fidelity/MiddlewareViewSigned", func() *mutation {
			strike := every(100)
			return damages(func(m *pubsub.Message) {
				if strike() && len(m.Payload) > 0 {
					m.Payload = slices.Clone(m.Payload)
					m.Payload[len(m.Payload)-1] ^= 1
				}
			})
		}},
	}
}

// guards puts something else into the place of what a layer does with what comes. sound is what the layer itself does; next is the handler.
func guards(layer string, incoming func(m *mutation, next, sound pubsub.Handler) pubsub.Handler) *mutation {
	m := &mutation{}
	m.guard = func(l pubsub.Middleware) pubsub.Middleware {
		if l.Name != layer {
			return l
		}
		sound := l.Incoming
		l.Incoming = func(next pubsub.Handler) pubsub.Handler { return incoming(m, next, sound(next)) }
		return l
	}
	return m
}

// forgives lets through what a layer refuses for one reason.
func forgives(layer string, why security.Refusal) func() *mutation {
	return func() *mutation {
		return guards(layer, func(m *mutation, next, sound pubsub.Handler) pubsub.Handler {
			return func(ctx context.Context, d *pubsub.Delivery) error {
				raw := d.Message
				err := sound(ctx, d)
				if !errors.Is(err, why) {
					return err
				}
				m.struck.Store(true)
				d.Message = raw
				return next(ctx, d)
			}
		})
	}
}

// without leaves a layer out.
func without(layer string) *mutation {
	return guards(layer, func(_ *mutation, next, _ pubsub.Handler) pubsub.Handler { return next })
}

// awayIs makes something else of a pause.
func awayIs(instead func(err error, next func() error) error) func() *mutation {
	return func() *mutation {
		return guards("encrypt", func(m *mutation, next, sound pubsub.Handler) pubsub.Handler {
			return func(ctx context.Context, d *pubsub.Delivery) error {
				err := sound(ctx, d)
				if outcome, _ := pubsub.OutcomeOf(err); outcome != pubsub.OutcomePause {
					return err
				}
				m.struck.Store(true)
				return instead(err, func() error { return next(ctx, d) })
			}
		})
	}
}

// inPlain does not encrypt: when strike says so, or where that is nil when encrypting fails. What is plain is accepted then.
func inPlain(strike func() bool) *mutation {
	var mu sync.Mutex
	m := forgives("encrypt", security.ErrUnencrypted)()
	lenient := m.guard
	m.guard = func(l pubsub.Middleware) pubsub.Middleware {
		if l.Name != "encrypt" {
			return l
		}
		encrypt := l.Outgoing
		l.Outgoing = func(ctx context.Context, topic string, msg *pubsub.Message) error {
			if strike == nil {
				if encrypt(ctx, topic, msg) != nil {
					m.struck.Store(true)
				}
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			if strike() {
				m.struck.Store(true)
				return nil
			}
			return encrypt(ctx, topic, msg)
		}
		return lenient(l)
	}
	return m
}

// noncesAgain uses the nonce of the message before once more.
func noncesAgain() *mutation {
	var mu sync.Mutex
	var last []byte
	strike := every(100)
	m := &mutation{}
	m.guard = func(l pubsub.Middleware) pubsub.Middleware {
		if l.Name != "encrypt" {
			return l
		}
		encrypt := l.Outgoing
		l.Outgoing = func(ctx context.Context, topic string, msg *pubsub.Message) error {
			err := encrypt(ctx, topic, msg)
			mu.Lock()
			defer mu.Unlock()
			const nonce = 12
			if strike() {
				copy(msg.Payload[:nonce], last)
			}
			last = slices.Clone(msg.Payload[:nonce])
			return err
		}
		return l
	}
	return m
}
