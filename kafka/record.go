package kafka

import (
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
func decode(e *entry) *pubsub.Message {
	r := newReader([]entry{*e})
	return r.message(e)
}

// A reader makes messages of records. They share memory with each other, but not with the response in which the records came, unless they are large: one of
// them that waits would keep all of that. It is never used again.
type reader struct {
	messages []pubsub.Message
	headers  []pubsub.Header
	texts    strings.Builder
	payloads []byte // those that are small
	kind     string // the last Message.Type: most have the same
	content  string // the last Message.ContentType
}

func newReader(list []entry) *reader {
	r := &reader{messages: make([]pubsub.Message, 0, len(list))}
	size, n, small := 0, 0, 0
	for i := range list {
		rec := list[i].rec
		size += len(rec.Key)
		n += len(rec.Headers)
		if len(rec.Value) <= smallPayload {
			small += len(rec.Value)
		}
		for _, h := range rec.Headers {
			size += len(h.Key) + len(h.Value)
		}
	}
	r.headers = make([]pubsub.Header, 0, n)
	r.texts.Grow(size)
	r.payloads = make([]byte, 0, small)
	return r
}

// smallPayload is up to how many bytes a payload is copied out of its response.
const smallPayload = 4 << 10

func (r *reader) payload(b []byte) []byte {
	if b == nil || len(b) > smallPayload {
		return b
	}
	from := len(r.payloads)
	r.payloads = append(r.payloads, b...)
	return r.payloads[from:len(r.payloads):len(r.payloads)]
}

func (r *reader) text(b []byte) string {
	if len(b) == 0 {
		return ""
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

// message reads what of and the producer wrote, or any other client.
func (r *reader) message(e *entry) *pubsub.Message {
	r.messages = append(r.messages, pubsub.Message{Key: r.text(e.rec.Key), Payload: r.payload(e.rec.Value)})
	m := &r.messages[len(r.messages)-1]
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
		m.Time, _ = time.Parse(time.RFC3339Nano, string(v))
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

func (r *reader) list(h []*sarama.RecordHeader) pubsub.Headers {
	if len(h) == 0 {
		return nil
	}
	from := len(r.headers)
	for _, x := range h {
		a := pubsub.Header{Name: r.text(x.Key), Value: r.text(x.Value)}
		if x.Value == nil {
			a.Kind = pubsub.HeaderNull
		}
		r.headers = append(r.headers, a)
	}
	return r.headers[from:len(r.headers):len(r.headers)]
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
