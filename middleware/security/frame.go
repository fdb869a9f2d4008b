package security

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
)

// The two headers of the wire format, and how much of each is read.
const (
	headerSignature  = "omnisig"
	headerEncryption = "omnienc"

	maxSignature  = 4 << 10
	maxEncryption = 16 << 10
)

const (
	typeSignature = "application/vnd.omnibus.sig.v1"
	typeCipher    = "application/vnd.omnibus.aead.v1"
	typeWrap      = "application/vnd.omnibus.wrap.v1"
)

// A frame grows by what it is given: the only encoder of this package. Lengths are big-endian and stand before the bytes.
type frame []byte

func (f *frame) byte(b byte)    { *f = append(*f, b) }
func (f *frame) raw(b []byte)   { *f = append(*f, b...) }
func (f *frame) text8(s string) { *f = append(append(*f, byte(len(s))), s...) }

func (f *frame) bytes16(b []byte) {
	*f = append(binary.BigEndian.AppendUint16(*f, uint16(len(b))), b...)
}

func (f *frame) bytes32(b []byte) {
	*f = append(binary.BigEndian.AppendUint32(*f, uint32(len(b))), b...)
}

func (f *frame) int64(n int64) { *f = binary.BigEndian.AppendUint64(*f, uint64(n)) }

// optional keeps a text that is there, empty or not, apart from one that is missing.
func (f *frame) optional(s string, there bool) {
	if !there {
		*f = append(*f, 0)
		return
	}
	*f = append(binary.BigEndian.AppendUint32(append(*f, 1), uint32(len(s))), s...)
}

// filled is optional for a text that is missing where it is empty.
func (f *frame) filled(s string) { f.optional(s, s != "") }

// headroom is what envelope needs before a body.
const headroom = 96

// envelope puts the pre-authentication encoding of DSSE around a body that begins headroom bytes into f. It takes the room before it.
func (f frame) envelope(kind string) []byte {
	var head [headroom]byte
	h := append(head[:0], "DSSEv1 "...)
	h = strconv.AppendInt(h, int64(len(kind)), 10)
	h = append(append(append(h, ' '), kind...), ' ')
	h = append(strconv.AppendInt(h, int64(len(f)-headroom), 10), ' ')
	at := headroom - len(h)
	copy(f[at:], h)
	return f[at:]
}

// errFrame is what unreadable bytes are; nobody is told more.
var errFrame = errors.New("malformed")

// A reader takes a frame apart. The first thing that does not fit makes it bad, and from then on everything is empty.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.rest) {
		r.bad = true
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) bytes8() []byte { return r.take(int(r.byte())) }

func (r *reader) bytes16() []byte {
	if b := r.take(2); b != nil {
		return r.take(int(binary.BigEndian.Uint16(b)))
	}
	return nil
}

func (r *reader) int64() int64 {
	if b := r.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

// end says whether everything was there, and nothing is left.
func (r *reader) end() bool { return !r.bad && len(r.rest) == 0 }

// encoding is base64url without padding, and of several texts that would mean the same bytes takes one only.
var encoding = base64.RawURLEncoding.Strict()

// decode refuses also line breaks, which package base64 passes over.
func decode(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, errFrame
	}
	b, err := encoding.DecodeString(text)
	if err != nil {
		return nil, errFrame
	}
	return b, nil
}
