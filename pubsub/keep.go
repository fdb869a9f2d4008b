package pubsub

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strconv"
)

// keep copies m into memory of ours. Blocks are never reused: a driver may keep what it was given.
func (p *publisher) keep(m *Message, owned bool) *Message {
	if len(p.slab) == 0 {
		p.slab = make([]Message, slabSize)
	}
	k := &p.slab[0]
	p.slab = p.slab[1:]
	*k = *m
	switch n := len(m.Payload); {
	case owned || m.Payload == nil:
	case n > bufPayload:
		k.Payload = bytes.Clone(m.Payload)
	default:
		if n > len(p.buf) || p.buf == nil {
			p.buf = make([]byte, bufSize)
		}
		copy(p.buf, m.Payload)
		k.Payload, p.buf = p.buf[:n:n], p.buf[n:]
	}
	if !owned {
		k.Headers = slices.Clone(m.Headers)
	}
	// Handlers of several groups may get this one where the broker is in this process. What one of them appends must not be what another one has.
	k.Payload, k.Headers = slices.Clip(k.Payload), slices.Clip(k.Headers)
	return k
}

// token is different for every message and place, and the same whenever this message is sent again there.
func (p *publisher) token(to Place, m *Message, seq uint64) (d Dedup) {
	if p.opts.DedupByID {
		return hashToken("id", to, m.ID)
	}
	h := p.salt
	for i := range len(to.Topic) {
		h = (h ^ uint64(to.Topic[i])) * 1099511628211 // FNV-1a
	}
	binary.BigEndian.PutUint64(d[:8], h)
	binary.BigEndian.PutUint64(d[8:], seq)
	return d
}

// hashToken makes the token that anyone would make who sends the same thing to the same place.
func hashToken(what string, to Place, parts ...string) (d Dedup) {
	h := sha256.New()
	for _, s := range append([]string{what, to.Topic, to.Group, strconv.Itoa(int(to.Kind)), to.Tier.String()}, parts...) {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(s))))
		h.Write([]byte(s))
	}
	copy(d[:], h.Sum(nil))
	return d
}
