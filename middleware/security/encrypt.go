package security

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// EncryptOptions are what Encrypt needs. A service that only consumes needs Unwrap alone.
type EncryptOptions struct {
	Producer   string // the same as SignOptions.Producer; "" only with Unsigned, or where nothing is published
	Recipients []KMS  // what is published is encrypted for each of these, one to eight; none = Publish is refused
	Unwrap     []KMS  // what is received is decrypted with one of these, found by its provider's name; nil = Recipients

	Unsigned     bool          // messages are encrypted and not signed: nobody knows who has sent them, and they are accepted all the same
	Plain        bool          // also what is not encrypted is accepted: while publishers learn to encrypt
	AllowUnbound []string      // providers that are used although what they wrap is bound to nothing, see Unbound
	KeyAge       time.Duration // how long a data key is used; 0 = 1h
	Timeout      time.Duration // of one call of a KMS; 0 = 10s
	Pause        time.Duration // how long the subscription rests when a KMS does not answer; 0 = 5s
}

const (
	defaultKMSTimeout = 10 * time.Second
	defaultKMSPause   = 5 * time.Second

	headerContentEncoding = "content-encoding"
)

// Encrypt encrypts payloads with AES-256 in GCM and decrypts them again. Headers, ID, type and key stay readable: brokers and dead letters need them. The
// ciphertext is bound to producer, topic, ID, type, content type and content encoding: elsewhere it does not open.
//
// The key is a data key of this process, this topic and these recipients, which each recipient's KMS wraps and the header omnienc carries. It is used for KeyAge,
// 2^22 messages or 64 GiB, whichever comes first, and its successor made in the background at 80 % of that; a KMS is asked neither for each message nor by each
// consumer twice: 1,000 unwrapped keys are kept for an hour, those that do not open for 30 s. A nil payload is not encrypted: it stays nil.
//
// A KMS that does not answer makes Publish fail once the data key is used up; nothing is sent in plain text. A consumer that needs it pauses, and goes on by itself.
// What does not decrypt is given up as it came, with a Refusal as its reason.
//
// Without Sign anybody who can wrap for the recipients can send: where that layer is missing the subscription pauses, unless Unsigned is set.
func Encrypt(opts EncryptOptions) pubsub.Middleware {
	e := newEncrypter(opts)
	return pubsub.Middleware{
		Name: "encrypt", After: []string{"sign", "access", "replay"},
		Why:      "what nobody has verified is not decrypted, and a signature is made over what is on the wire",
		Outgoing: e.outgoing, Incoming: e.incoming, Err: e.check(),
	}
}

type encrypter struct {
	EncryptOptions
	keys   dataKeys
	cache  *keyCache
	frames sync.Pool // of *frame
}

func newEncrypter(opts EncryptOptions) *encrypter {
	for d, standard := range map[*time.Duration]time.Duration{&opts.KeyAge: defaultKeyAge, &opts.Timeout: defaultKMSTimeout, &opts.Pause: defaultKMSPause} {
		if *d == 0 {
			*d = standard
		}
	}
	if opts.Unwrap == nil {
		opts.Unwrap = opts.Recipients
	}
	return &encrypter{
		EncryptOptions: opts,
		keys: dataKeys{
			recipients: opts.Recipients, producer: opts.Producer, timeout: opts.Timeout, topics: map[string]*topicKeys{},
			limits: limits{opts.KeyAge, maxKeyMessages, maxKeyBytes},
		},
		cache: newKeyCache(opts.Timeout),
	}
}

func (e *encrypter) check() error {
	switch {
	case len(e.Recipients) > maxRecipients:
		return fmt.Errorf("EncryptOptions.Recipients has %d, at most %d can be written", len(e.Recipients), maxRecipients)
	case len(e.Producer) > maxName:
		return fmt.Errorf("EncryptOptions.Producer has %d bytes, at most %d can be written", len(e.Producer), maxName)
	case len(e.Unwrap) == 0:
		return errors.New("EncryptOptions has neither Recipients nor Unwrap")
	case e.Producer == "" && len(e.Recipients) > 0 && !e.Unsigned:
		return errors.New("EncryptOptions.Producer is empty: it is that of Sign; or else say Unsigned")
	case e.Producer != "" && e.Unsigned:
		return errors.New("EncryptOptions has Producer and Unsigned: who decrypts what is not signed knows of no producer")
	case e.KeyAge < 0 || e.Timeout < 0 || e.Pause < 0:
		return errors.New("EncryptOptions has a negative duration")
	}
	for _, k := range slices.Concat(e.Recipients, e.Unwrap) {
		if k == nil {
			return errors.New("EncryptOptions has a nil KMS")
		}
		name := k.Provider()
		if name == "" || len(name) > maxName {
			return fmt.Errorf("a KMS calls its provider by %d bytes; it needs 1 to %d", len(name), maxName)
		}
		if u, ok := k.(Unbound); ok && u.Unbound() && !slices.Contains(e.AllowUnbound, name) {
			return fmt.Errorf("what the KMS %q wraps is bound to nothing: it could be used for other topics; EncryptOptions.AllowUnbound accepts that", name)
		}
	}
	return nil
}

// borrow lends a frame that is empty.
func (e *encrypter) borrow() *frame {
	if f, ok := e.frames.Get().(*frame); ok {
		*f = (*f)[:0]
		return f
	}
	return new(frame)
}

// associated is what the ciphertext of m is bound to, without its envelope; nil where it cannot be said.
func (e *encrypter) associated(bound []byte, m *pubsub.Message) *frame {
	content, there, ok := single(m.Headers, headerContentEncoding)
	if !ok {
		return nil
	}
	f := e.borrow()
	*f = slices.Grow(*f, headroom+512)[:headroom]
	f.raw(bound)
	f.filled(m.ID)
	f.filled(m.Type)
	f.filled(m.ContentType)
	f.optional(content, there)
	return f
}

func (e *encrypter) outgoing(ctx context.Context, topic string, m *pubsub.Message) error {
	if len(e.Recipients) == 0 {
		return errors.New("EncryptOptions.Recipients is empty: this service can publish nothing")
	}
	for i := range m.Headers {
		if ownHeader(m.Headers[i].Name) {
			return fmt.Errorf("the message has a header %q already", m.Headers[i].Name)
		}
	}
	if m.Payload == nil {
		return nil
	}
	key, err := e.keys.get(ctx, topic, len(m.Payload))
	if err != nil {
		return fmt.Errorf("%w: %w", pubsub.ErrUnavailable, err)
	}
	f := e.associated(key.bound, m)
	if f == nil {
		return errors.New("the header content-encoding is there twice, or no text")
	}
	defer e.frames.Put(f)
	m.Payload = key.cipher.Seal(m.Payload, f.envelope(typeCipher))
	m.Headers.Add(headerEncryption, key.header)
	return nil
}
