package security

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	maxEntries = 4   // signatures of one message
	maxNames   = 255 // of headers that a signature covers
	maxHeaders = 1000
)

const (
	wireVersion = 1
	sizeLength  = 4 // of an lp32
)

// A preamble is what a signature says of itself: P of the wire format.
type preamble struct {
	suite, key, producer, topic []byte
	issued, expires             int64    // in Unix milliseconds; expires 0 = never
	names                       []string // of the covered headers: ascending, lower case, each once
}

func (f *frame) preamble(p *preamble) {
	f.byte(wireVersion)
	for _, text := range [][]byte{p.suite, p.key, p.producer, p.topic} {
		f.byte(byte(len(text)))
		f.raw(text)
	}
	f.int64(p.issued)
	f.int64(p.expires)
	f.byte(byte(len(p.names)))
	for _, name := range p.names {
		f.text8(name)
	}
}

// parse reads a preamble, and says whether it is one. names gives it room.
func (p *preamble) parse(b []byte, names []string) bool {
	r, text := reader{rest: b}, string(b)
	version := r.byte()
	p.suite, p.key, p.producer, p.topic = r.bytes8(), r.bytes8(), r.bytes8(), r.bytes8()
	p.issued, p.expires = r.int64(), r.int64()
	p.names = names[:0]
	for range int(r.byte()) {
		n := len(r.bytes8())
		end := len(b) - len(r.rest)
		name := text[end-n : end]
		if r.bad || !coverable(name) || len(p.names) > 0 && p.names[len(p.names)-1] >= name {
			return false
		}
		p.names = append(p.names, name)
	}
	return r.end() && version == wireVersion && p.issued > 0 && p.expires >= 0
}

// coverable says whether a signature can cover headers of that name.
func coverable(name string) bool {
	for i := range len(name) {
		if 'A' <= name[i] && name[i] <= 'Z' {
			return false
		}
	}
	return len(name) <= maxName && name != headerSignature && name != headerEncryption && !strings.HasPrefix(name, headerReserved)
}

// headerReserved begins the headers that the engine writes and takes off, also behind the back of who has signed.
const headerReserved = "omnibus-"

// Headers that stand for attributes of CloudEvents which a Message has no field for.
const (
	headerSource  = "source"
	headerSubject = "subject"
	headerSchema  = "dataschema"
)

// single returns the value of a text header that is there once; ok = false if it is there twice, or with another kind.
func single(h pubsub.Headers, name string) (value string, there, ok bool) {
	for i := range h {
		if h[i].Name != name {
			continue
		}
		if there || h[i].Kind != pubsub.HeaderText {
			return "", there, false
		}
		value, there = h[i].Value, true
	}
	return value, there, true
}

// message appends M of the wire format, and says whether m can be written so: each header that counts is there once at most.
func (f *frame) message(m *pubsub.Message, names []string) bool {
	f.filled(m.ID)
	f.filled(m.Type)
	for _, name := range [...]string{headerSource, headerSubject} {
		if !f.header(m, name) {
			return false
		}
	}
	f.time(m.Time)
	f.filled(m.ContentType)
	if !f.header(m, headerSchema) {
		return false
	}
	f.filled(m.Key)
	for _, name := range names {
		if !f.header(m, name) {
			return false
		}
	}
	if !f.header(m, headerEncryption) {
		return false
	}
	if m.Payload == nil {
		f.byte(0)
		return true
	}
	f.byte(1)
	f.int64(int64(len(m.Payload)))
	sum := sha256.Sum256(m.Payload)
	f.raw(sum[:])
	return true
}

func (f *frame) header(m *pubsub.Message, name string) bool {
	value, there, ok := single(m.Headers, name)
	f.optional(value, there)
	return ok
}

// time is signed as text: RFC 3339 in UTC, with as many digits of the second as it takes.
func (f *frame) time(t time.Time) {
	if t.IsZero() {
		f.byte(0)
		return
	}
	var room [40]byte
	text := t.UTC().AppendFormat(room[:0], time.RFC3339Nano)
	f.byte(1)
	f.bytes32(text)
}

// signedBytes is what is signed: P and M in their envelope. buf gives it room, and has it again, grown.
func signedBytes(buf *frame, p []byte, m *pubsub.Message, names []string) (signed []byte, ok bool) {
	*buf = slices.Grow((*buf)[:0], headroom+512)[:headroom]
	buf.bytes32(p)
	if !buf.message(m, names) {
		return nil, false
	}
	return buf.envelope(typeSignature), true
}

// ownHeader says whether a name is one of the wire format's, or would be in another case.
func ownHeader(name string) bool {
	return len(name) == len(headerSignature) && (strings.EqualFold(name, headerSignature) || strings.EqualFold(name, headerEncryption))
}

// millis is t in Unix milliseconds, rounded up.
func millis(t time.Time) int64 { return t.Add(time.Millisecond - 1).UnixMilli() }

// digest names the message that was verified, whichever of its signatures that was: all say the same, but for the key. It is of P, with neither suite nor key, and M.
func (x *scratch) digest(rawLength int) (d [2]uint64) {
	p := x.verified
	p.suite, p.key = nil, nil
	x.preamble = x.preamble[:0]
	x.preamble.preamble(&p)
	x.preamble.raw(x.signed[headroom+sizeLength+rawLength:])
	sum := sha256.Sum256(x.preamble)
	return [2]uint64{binary.BigEndian.Uint64(sum[:]), binary.BigEndian.Uint64(sum[8:])}
}
