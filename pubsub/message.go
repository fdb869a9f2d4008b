package pubsub

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Message is what a publisher sends. It is a plain value: Publish works on its own copy and never
// changes yours. Payload and the header list are borrowed until Publish returns (for PublishAsync,
// until done is called); after that they are yours to reuse.
type Message struct {
	ID          string        // identifies the message; "" = one is assigned; deduplicates only with PublisherOptions.DedupByID
	Type        string        // what the payload is, e.g. "order.placed"; optional
	Key         string        // messages with one key stay in order; "" = unordered
	Payload     []byte        // nil and empty are kept apart
	ContentType string        // media type of Payload; optional
	Headers     Headers       // ordered, repeatable
	Time        time.Time     // when it happened; zero = when it is published
	Delay       time.Duration // deliver no earlier than this after Publish; 0 = at once (needs Schedule)
	TTL         time.Duration // drop if not delivered within this; 0 = never; works on every broker
	Priority    uint8         // 0 = normal to 9 = first (needs Priority)
}

// Clone returns a deep copy that shares no memory with m.
func (m Message) Clone() Message {
	m.ID, m.Type, m.Key, m.ContentType = strings.Clone(m.ID), strings.Clone(m.Type), strings.Clone(m.Key), strings.Clone(m.ContentType)
	m.Payload = bytes.Clone(m.Payload)
	m.Headers = slices.Clone(m.Headers)
	for i, h := range m.Headers {
		m.Headers[i] = Header{strings.Clone(h.Name), strings.Clone(h.Value), h.Kind}
	}
	return m
}

// Size is what the message counts against Capabilities.MaxMessage and MaxInFlightBytes: its payload, its texts and its headers.
func (m *Message) Size() int64 {
	n := len(m.Payload) + len(m.ID) + len(m.Type) + len(m.Key) + len(m.ContentType)
	for i := range m.Headers {
		n += len(m.Headers[i].Name) + len(m.Headers[i].Value)
	}
	return int64(n)
}

// Headers is an ordered list of names and values. Names are case-sensitive and may repeat. Set, Add and
// Del never write to a list that another Message may share: they build a new one. Names that begin with
// "omnibus-" are reserved; only those of a dead letter, "omnibus-dlq-", and of a replay, "omnibus-replay", can be published.
type Headers []Header

// A Header is one name and value. Any bytes are allowed in both: what a broker cannot carry its adapter encodes.
type Header struct {
	Name, Value string     // as text; Value of a Kind other than HeaderText as that says
	Kind        HeaderKind // how the broker types it; the zero value is text
}

// HeaderKind keeps a typed header (an AMQP integer, a Kafka null) intact through consume, dead letter and replay.
type HeaderKind uint8

const (
	HeaderText   HeaderKind = iota // Value as it is
	HeaderNull                     // no value; Value is ""
	HeaderInt                      // decimal, as in "-7"
	HeaderFloat                    // decimal, as in "3.25"
	HeaderBool                     // "true" or "false"
	HeaderTime                     // RFC 3339 in UTC, to the second
	HeaderNative                   // the adapter's own encoding of a value no other broker has, e.g. an AMQP table
)

// Get returns the first value of name, or "".
func (h Headers) Get(name string) string { v, _ := h.Lookup(name); return v }

// Lookup returns the first value of name and whether there is one.
func (h Headers) Lookup(name string) (string, bool) {
	for i := range h {
		if h[i].Name == name {
			return h[i].Value, true
		}
	}
	return "", false
}

// Values yields every value of name, in order.
func (h Headers) Values(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range h {
			if h[i].Name == name && !yield(h[i].Value) {
				return
			}
		}
	}
}

// Add appends a text header.
func (h *Headers) Add(name, value string) {
	*h = append((*h)[:len(*h):len(*h)], Header{Name: name, Value: value})
}

// Set replaces every header of that name with one.
func (h *Headers) Set(name, value string) { h.Del(name); h.Add(name, value) }

// Del removes every header of that name.
func (h *Headers) Del(name string) { h.delFunc(func(n string) bool { return n == name }) }

func (h *Headers) delFunc(match func(name string) bool) {
	if !slices.ContainsFunc(*h, func(x Header) bool { return match(x.Name) }) {
		return
	}
	out := make(Headers, 0, len(*h))
	for _, x := range *h {
		if !match(x.Name) {
			out = append(out, x)
		}
	}
	*h = out
}

// A Position is a place in a topic: a partition and offset, a sequence, an entry ID. Opaque, comparable, free to copy.
// The zero value is no position.
type Position struct {
	a, b int64
	c    int32
	kind uint8
}

// String is the text of MarshalText, "" for the zero value.
func (p Position) String() string {
	if p == (Position{}) {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d.%d", p.kind, p.c, p.a, p.b)
}

// MarshalText writes the position so that UnmarshalText reads it back.
func (p Position) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText wrote. Anything else is an ErrInvalid.
func (p *Position) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*p = Position{}
		return nil
	}
	bad := &Error{Op: "parse position", Code: ErrInvalid, Err: fmt.Errorf("%q", b), Hint: "positions come from Delivery.Position, Receipt.Position or Position.String"}
	parts := strings.Split(string(b), ".")
	if len(parts) != 4 {
		return bad
	}
	var v [4]int64
	for i, bits := range []int{9, 32, 64, 64} { // a kind is 0 to 255, which is 9 bits with a sign
		n, err := strconv.ParseInt(parts[i], 10, bits)
		if err != nil || strconv.FormatInt(n, 10) != parts[i] {
			return bad
		}
		v[i] = n
	}
	if v[0] < 0 {
		return bad
	}
	*p = Position{kind: uint8(v[0]), c: int32(v[1]), a: v[2], b: v[3]}
	return nil
}
