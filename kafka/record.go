package kafka

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/pubsub"
)

// The wire format. The payload is the value: nil is null, a tombstone. The key is the key, none is null. What Kafka has no place for stands in
// headers before the user's own: omnibus-id, which says that the message is ours, omnibus-time (RFC 3339 with nanoseconds), omnibus-type,
// content-type, and omnibus-kinds, which lists the kinds of headers that are not text, by their index among the user's: "0=int,3=time". A null
// value of a header is pubsub.HeaderNull. Where the user's first header would be taken for one of these, an empty one of that name goes before it.
//
// A message of any other client is read as it is; its first content-type is also its content type, and not among its headers.
const (
	hdrID      = "omnibus-id"
	hdrTime    = "omnibus-time"
	hdrType    = "omnibus-type"
	hdrContent = "content-type"
	hdrKinds   = "omnibus-kinds"
	hdrGroup   = "omnibus-group" // of the record that describes a group, see definition
)

func kindNames() []string { return []string{"", "null", "int", "float", "bool", "time", "native"} }

// maxOwn is how many headers of ours a message has at most.
const maxOwn = 5

// The names as bytes. They are only read.
var (
	nameID      = []byte(hdrID)
	nameTime    = []byte(hdrTime)
	nameType    = []byte(hdrType)
	nameContent = []byte(hdrContent)
	nameKinds   = []byte(hdrKinds)
)

// of are the headers of a message on the wire. Room for them is there: they are never moved.
func (w *wire) of(m *pubsub.Message) []*sarama.RecordHeader {
	from := len(w.pointers)
	w.add(nameID, w.text(m.ID))
	w.add(nameTime, w.time(m.Time))
	first := ""
	if len(m.Headers) > 0 {
		first = m.Headers[0].Name
	}
	if m.Type != "" || first == hdrType {
		w.add(nameType, w.text(m.Type))
	}
	if m.ContentType != "" || first == hdrContent {
		w.add(nameContent, w.text(m.ContentType))
	}
	if kinds := kindsOf(m.Headers); kinds != "" || first == hdrKinds {
		w.add(nameKinds, []byte(kinds))
	}
	for i := range m.Headers {
		x := &m.Headers[i]
		var value []byte
		if x.Kind != pubsub.HeaderNull {
			value = w.text(x.Value)
		}
		w.add(w.text(x.Name), value)
	}
	return w.pointers[from:len(w.pointers):len(w.pointers)]
}

func kindsOf(h pubsub.Headers) string {
	var list []string
	for i := range h {
		if k := h[i].Kind; k != pubsub.HeaderText && k != pubsub.HeaderNull && int(k) < len(kindNames()) {
			list = append(list, strconv.Itoa(i)+"="+kindNames()[k])
		}
	}
	return strings.Join(list, ",")
}

// decode reads a record alone.
func decode(e *entry) *pubsub.Message { return new(reader).message(e) }

// A reader makes messages of records, which share no memory with the response in which the records came, unless they are large: one of them that waits
// would keep all of that.
type reader struct {
	many     bool // it makes room for many at once, which then share blocks of memory with each other
	messages []pubsub.Message
	headers  []pubsub.Header
	texts    strings.Builder
	payloads []byte // room for those that are small
	kind     string // the last Message.Type: most have the same
	content  string // the last Message.ContentType
	stamp    []byte // the last Message.Time, to the second: most are of the same
	second   time.Time
}

// The blocks of a reader for many: a message that waits keeps one of each.
const (
	messageBlock = 64
	headerBlock  = 64
	textBlock    = 4 << 10
	payloadBlock = 16 << 10
	smallPayload = 4 << 10 // up to which a payload is copied out of its response
)

// block is how much room to make where so much is needed.
func (r *reader) block(need, most int) int {
	if r.many {
		return max(need, most)
	}
	return need
}

func (r *reader) payload(b []byte) []byte {
	n := len(b)
	if b == nil || n > smallPayload {
		return slices.Clip(b) // behind it the next record begins
	}
	if r.payloads == nil || n > len(r.payloads) {
		r.payloads = make([]byte, r.block(n, payloadBlock))
	}
	own := r.payloads[:n:n]
	r.payloads = r.payloads[n:]
	copy(own, b)
	return own
}

func (r *reader) text(b []byte) string {
	if len(b) > r.texts.Cap()-r.texts.Len() {
		r.texts = strings.Builder{}
		r.texts.Grow(r.block(len(b), textBlock))
	}
	from := r.texts.Len()
	r.texts.Write(b)
	return r.texts.String()[from:]
}

// same reads a text that is often the one before.
func (r *reader) same(last *string, b []byte) string {
	if string(b) != *last {
		*last = string(b)
	}
	return *last
}

// time reads what wire.time wrote. What it cannot read is no time.
func (r *reader) time(b []byte) time.Time {
	if fraction, ok := bytes.CutPrefix(b, r.stamp); ok && len(r.stamp) > 0 {
		if n, ok := nanoseconds(fraction); ok {
			return r.second.Add(n)
		}
	}
	t, err := time.Parse(time.RFC3339Nano, string(b))
	if err != nil {
		return time.Time{}
	}
	r.second = t.UTC().Truncate(time.Second)
	if r.stamp = r.second.AppendFormat(r.stamp[:0], stampLayout); !bytes.HasPrefix(b, r.stamp) { // of another zone
		r.stamp = r.stamp[:0]
	}
	return t
}

// nanoseconds reads what stands behind the seconds: ".789Z".
func nanoseconds(b []byte) (n time.Duration, ok bool) {
	const digits = 9
	if len(b) < 3 || len(b) > digits+2 || b[0] != '.' || b[len(b)-1] != 'Z' {
		return 0, len(b) == 1 && b[0] == 'Z'
	}
	for i := range digits {
		n *= 10
		if i < len(b)-2 {
			d := b[i+1] - '0'
			if d > 9 {
				return 0, false
			}
			n += time.Duration(d)
		}
	}
	return n, true
}

// message reads what of and the producer wrote, or any other client.
func (r *reader) message(e *entry) *pubsub.Message {
	m := r.fresh()
	m.Key, m.Payload = r.text(e.rec.Key), r.payload(e.rec.Value)
	h := e.rec.Headers
	if len(h) == 0 || string(h[0].Key) != hdrID {
		m.Time = e.time
		r.foreign(h, m)
		return m
	}
	m.ID = r.text(h[0].Value)
	h = h[1:]
	next := func(name string) ([]byte, bool) {
		if len(h) == 0 || string(h[0].Key) != name {
			return nil, false
		}
		v := h[0].Value
		h = h[1:]
		return v, true
	}
	if v, ok := next(hdrTime); ok {
		m.Time = r.time(v)
	}
	if v, ok := next(hdrType); ok {
		m.Type = r.same(&r.kind, v)
	}
	if v, ok := next(hdrContent); ok {
		m.ContentType = r.same(&r.content, v)
	}
	kinds, _ := next(hdrKinds)
	m.Headers = r.list(h)
	if len(kinds) > 0 {
		for entry := range strings.SplitSeq(string(kinds), ",") {
			i, kind, _ := strings.Cut(entry, "=")
			n, err := strconv.Atoi(i)
			if k := slices.Index(kindNames(), kind); err == nil && n >= 0 && n < len(m.Headers) && k > 0 {
				m.Headers[n].Kind = pubsub.HeaderKind(k)
			}
		}
	}
	return m
}

// fresh is a message in which nothing is yet.
func (r *reader) fresh() *pubsub.Message {
	if len(r.messages) == 0 {
		r.messages = make([]pubsub.Message, r.block(1, messageBlock))
	}
	m := &r.messages[0]
	r.messages = r.messages[1:]
	return m
}

func (r *reader) list(h []*sarama.RecordHeader) pubsub.Headers {
	n := len(h)
	if n == 0 {
		return nil
	}
	if n > len(r.headers) {
		r.headers = make([]pubsub.Header, r.block(n, headerBlock))
	}
	list := r.headers[:n:n]
	r.headers = r.headers[n:]
	for i, x := range h {
		list[i] = pubsub.Header{Name: r.text(x.Key), Value: r.text(x.Value)}
		if x.Value == nil {
			list[i].Kind = pubsub.HeaderNull
		}
	}
	return list
}

func (r *reader) foreign(h []*sarama.RecordHeader, m *pubsub.Message) {
	m.Headers = r.list(h)
	for i, x := range m.Headers {
		if x.Name == hdrContent && x.Kind == pubsub.HeaderText {
			m.ContentType = x.Value
			if m.Headers = slices.Delete(m.Headers, i, i+1); len(m.Headers) == 0 {
				m.Headers = nil
			}
			break
		}
	}
}
