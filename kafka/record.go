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

// decode reads what headersOf and the producer wrote, or any other client.
func decode(r *sarama.Record, at time.Time) *pubsub.Message {
	m := &pubsub.Message{Key: string(r.Key), Payload: r.Value}
	h := r.Headers
	if len(h) == 0 || string(h[0].Key) != hdrID {
		m.Time = at
		decodeForeign(h, m)
		return m
	}
	m.ID = string(h[0].Value)
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
		m.Type = string(v)
	}
	if v, ok := next(hdrContent); ok {
		m.ContentType = string(v)
	}
	kinds, _ := next(hdrKinds)
	m.Headers = headers(h)
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

func headers(list []*sarama.RecordHeader) pubsub.Headers {
	if len(list) == 0 {
		return nil
	}
	all := make(pubsub.Headers, len(list))
	for i, x := range list {
		all[i] = pubsub.Header{Name: string(x.Key), Value: string(x.Value)}
		if x.Value == nil {
			all[i].Kind = pubsub.HeaderNull
		}
	}
	return all
}

func decodeForeign(h []*sarama.RecordHeader, m *pubsub.Message) {
	m.Headers = headers(h)
	for i, x := range m.Headers {
		if x.Name == hdrContent && x.Kind == pubsub.HeaderText {
			m.ContentType = x.Value
			m.Headers = slices.Delete(m.Headers, i, i+1)
			break
		}
	}
}
