package security

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

func (s *signer) incoming(next pubsub.Handler) pubsub.Handler {
	return func(ctx context.Context, d *pubsub.Delivery) error {
		in := &verifiedContext{Context: ctx}
		if err := s.verify(&d.Message, d.Topic, &in.v); err != nil {
			return pubsub.GiveUp(pubsub.ReasonVerification, err)
		}
		return next(in, d)
	}
}

// verify finds out whether m is what was signed, for this topic, and takes off what was not. The error is a Refusal.
func (s *signer) verify(m *pubsub.Message, topic string, v *Verified) error {
	text, err := signatureOf(m)
	if err != nil {
		return err
	}
	x := s.borrow()
	defer s.scratch.Put(x)
	key, raw, signature, err := s.entry(x, text)
	if err != nil {
		return err
	}
	p := &x.verified
	switch {
	case string(p.suite) != string(key.Suite) || key.signature == nil:
		return ErrUnknownKey
	case string(p.producer) != key.Owner:
		return ErrWrongProducer
	}
	signed, ok := signedBytes(&x.signed, raw, m, p.names)
	if !ok || !key.signature.Verify(signed, signature) {
		return ErrForged
	}
	if string(p.topic) != topic && !slices.Contains(s.Topics, string(p.topic)) {
		return ErrWrongDestination
	}
	if !s.timely(p) {
		return ErrExpired
	}
	for _, name := range s.Require {
		if _, covered := slices.BinarySearch(p.names, name); !covered {
			return ErrUncovered
		}
	}
	*v = Verified{Producer: key.Owner, Key: key.ID, Suite: key.Suite, Issued: time.UnixMilli(p.issued), digest: x.digest(len(raw))}
	if v.Topic = topic; string(p.topic) != topic {
		v.Topic = string(p.topic)
	}
	if p.expires > 0 {
		v.Expires = time.UnixMilli(p.expires)
	}
	s.strip(m, p.names)
	return nil
}

// signatureOf finds the one signature of a message, before anything of it is decoded.
func signatureOf(m *pubsub.Message) (text string, err error) {
	if len(m.Headers) > maxHeaders {
		return "", ErrMalformed
	}
	found, encrypted := false, false
	for i := range m.Headers {
		h := &m.Headers[i]
		if !ownHeader(h.Name) {
			continue
		}
		switch {
		case h.Kind != pubsub.HeaderText:
			return "", ErrMalformed
		case h.Name == headerSignature && !found && len(h.Value) <= maxSignature:
			found, text = true, h.Value
		case h.Name == headerEncryption && !encrypted && len(h.Value) <= maxEncryption:
			encrypted = true
		default:
			return "", ErrMalformed
		}
	}
	if !found {
		return "", ErrUnsigned
	}
	return text, nil
}

// entry returns the first of the signatures whose key is accepted, and leaves its preamble in x. It alone decides: nobody can have another tried.
func (s *signer) entry(x *scratch, text string) (key *Key, raw, signature []byte, err error) {
	keys := s.Keys.now()
	for n, rest, more := 0, text, true; more; n++ {
		var one string
		one, rest, more = strings.Cut(rest, "~")
		if n == maxEntries {
			return nil, nil, nil, ErrMalformed
		}
		front, back, _ := strings.Cut(one, ".")
		p, err1 := decode(front)
		sig, err2 := decode(back)
		if err1 != nil || err2 != nil || len(sig) == 0 {
			return nil, nil, nil, ErrMalformed
		}
		if key != nil {
			var other preamble
			if !other.parse(p, nil) {
				return nil, nil, nil, ErrMalformed
			}
			continue
		}
		if !x.verified.parse(p, x.names) {
			return nil, nil, nil, ErrMalformed
		}
		x.names = x.verified.names
		if k := keys.accepted(x.verified.key); k != nil {
			key, raw, signature = k, p, sig
		}
	}
	if key == nil {
		return nil, nil, nil, ErrUnknownKey
	}
	return key, raw, signature, nil
}

// timely says whether now is within what the signature says, give or take how far clocks are apart.
func (s *signer) timely(p *preamble) bool {
	now, skew := time.Now().UnixMilli(), s.MaxSkew.Milliseconds()
	switch {
	case p.issued > now+skew:
		return false
	case p.expires > 0 && p.expires < now-skew:
		return false
	case s.MaxAge > 0 && p.issued < now-s.MaxAge.Milliseconds()-skew:
		return false
	}
	return true
}

// strip leaves the headers that the signature covers, what is still to be decrypted, and those that nobody is to cover.
func (s *signer) strip(m *pubsub.Message, names []string) {
	var kept pubsub.Headers
	for i := range m.Headers {
		h := &m.Headers[i]
		_, covered := slices.BinarySearch(names, h.Name)
		switch {
		case covered, h.Name == headerEncryption, covers(h.Name), slices.Contains(s.Uncover, h.Name):
			if kept == nil {
				kept = make(pubsub.Headers, 0, len(m.Headers)-i)
			}
			kept = append(kept, *h)
		}
	}
	m.Headers = kept
}

// covers says whether every signature covers a header, among the fields.
func covers(name string) bool {
	return name == headerSource || name == headerSubject || name == headerSchema
}
