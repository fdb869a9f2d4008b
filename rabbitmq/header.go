package rabbitmq

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/pubsub"
)

// The wire format. The payload is the body, the ID the message-id, the type the type, the content type the content-type, the time the timestamp and, of
// its second, omnibus.ns. A header of the user's is an entry of the headers table, with the type of its kind: longstr, void, an integer of 32 bits or, if it has
// more, of 64, double, boolean, timestamp; pubsub.HeaderNative is any other type, see native.go. AMQP's tables have no order and each name once, properties have at most 255
// bytes, and the broker gives a meaning to some names. So a message of ours (it has omnibus.ns) follows one rule:
//
//   - omnibus.key is the key. An attribute that is longer than 255 bytes or not printable ASCII stands in omnibus.id, omnibus.type or omnibus.content
//     instead of its property.
//   - omnibus.headers lists the headers in their order, if there are several or one that its entry alone does not tell: "a,b;int,a". In names "%", ",", ";" and
//     all that is not printable ASCII are written as "%" and two hexadecimal digits.
//   - A header stands under its name, unless another one before it does, or the name is empty, longer than 255 bytes, not printable ASCII, or has a meaning:
//     then the entry of the n-th header, from 0, is omnibus.h<n>.
//   - A kind is named in the list where the entry has another type: because the value cannot be said in that, as a time with fractions of seconds, or
//     because the message lies in a stream, which does not keep all types. "a;text" is a text that is no UTF-8, of which a stream makes bytes.
//   - omnibus.nil says that the payload is nil, not empty.
//
// A message of any other client is read as it is, its headers sorted by name; properties that a Message has no field for are headers "amqp-reply-to" and so on.
const (
	private    = "omnibus."
	hdrNanos   = private + "ns"
	hdrKey     = private + "key"
	hdrID      = private + "id"
	hdrType    = private + "type"
	hdrContent = private + "content"
	hdrList    = private + "headers"
	hdrAlias   = private + "h"
	hdrNil     = private + "nil"
	hdrTopic   = private + "topic"  // of what is sent to a group alone: the concrete topic, where the group's is a pattern
	hdrFailed  = private + "failed" // of a retry: the group's failures so far
	hdrDue     = private + "due"    // in Unix milliseconds: of what waits for longer than the ladder is
	hdrMark    = private + "mark"   // of the first message of a stream, which is none
	hdrWait    = private + "w"      // followed by a step of the ladder: it is to wait there
	hdrOffset  = "x-stream-offset"
	shortText  = 255
)

func kindNames() []string { return []string{"text", "null", "int", "float", "bool", "time", "native"} }

// meant says whether the broker gives a header of that name a meaning, or writes one itself.
func meant(name string) bool {
	switch name {
	case "CC", "BCC", "x-death", "x-delivery-count", "x-acquired-count", "x-delay", "x-match", hdrOffset:
		return true
	}
	return strings.HasPrefix(name, private) || strings.HasPrefix(name, "x-first-death-") || strings.HasPrefix(name, "x-last-death-")
}

// counted says whether a header is what a queue says of a delivery: no part of the message.
func counted(name string) bool {
	return name == "x-delivery-count" || name == "x-acquired-count" || name == hdrOffset
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return len(s) <= shortText
}

// encode writes a message. Nothing of it is shared with msg but the payload, which never changes. In a stream all values are text.
func encode(m *pubsub.Message, stream bool) amqp.Publishing {
	p := amqp.Publishing{DeliveryMode: amqp.Persistent, Body: m.Payload, Timestamp: m.Time, Headers: make(amqp.Table, 3+len(m.Headers))}
	p.Headers[hdrNanos] = int32(m.Time.Nanosecond())
	attribute := func(property *string, header, value string) {
		if printable(value) {
			*property = value
		} else {
			p.Headers[header] = value
		}
	}
	attribute(&p.MessageId, hdrID, m.ID)
	attribute(&p.Type, hdrType, m.Type)
	attribute(&p.ContentType, hdrContent, m.ContentType)
	if m.Key != "" {
		p.Headers[hdrKey] = m.Key
	}
	if m.Payload == nil {
		p.Headers[hdrNil] = true
	}
	if len(m.Headers) == 0 {
		return p
	}
	listed := len(m.Headers) > 1
	var list strings.Builder
	for i := range m.Headers {
		h := &m.Headers[i]
		name := h.Name
		if _, taken := p.Headers[name]; taken || name == "" || meant(name) || !printable(name) {
			name, listed = hdrAlias+strconv.Itoa(i), true
		}
		var v any = h.Value
		exact := h.Kind == pubsub.HeaderText && (!stream || utf8.ValidString(h.Value))
		if !exact && !stream {
			if typed, ok := typed(h); ok {
				v, exact = typed, true
			}
		}
		p.Headers[name] = v
		if i > 0 {
			list.WriteByte(',')
		}
		escape(&list, h.Name)
		if !exact {
			list.WriteString(";" + kindNames()[h.Kind])
			listed = true
		}
	}
	if listed {
		p.Headers[hdrList] = list.String()
	}
	return p
}

// typed is the value that a header has in a table. Not ok: it has none of its kind from which decode would read the same text.
func typed(h *pubsub.Header) (v any, ok bool) {
	switch h.Kind {
	case pubsub.HeaderNull:
	case pubsub.HeaderInt:
		n, err := strconv.ParseInt(h.Value, 10, 64)
		if v, ok = n, err == nil; n == int64(int32(n)) {
			v = int32(n) // the only integers that all clients read alike
		}
	case pubsub.HeaderFloat:
		f, err := strconv.ParseFloat(h.Value, 64)
		v, ok = f, err == nil
	case pubsub.HeaderBool:
		v = h.Value == "true"
	case pubsub.HeaderTime:
		at, err := time.Parse(time.RFC3339, h.Value)
		v, ok = at, err == nil
	case pubsub.HeaderNative:
		v, ok = parseNative(h.Value)
	default:
		return nil, false
	}
	kind, text := describe(v)
	return v, (ok || v == nil || h.Kind == pubsub.HeaderBool) && kind == h.Kind && text == h.Value
}

// describe is the kind and the text of a value of a table.
func describe(v any) (kind pubsub.HeaderKind, text string) {
	switch v := v.(type) {
	case string:
		return pubsub.HeaderText, v
	case nil:
		return pubsub.HeaderNull, ""
	case int8, int16, int32, int64, int, uint8, uint16, uint32:
		return pubsub.HeaderInt, fmt.Sprint(v)
	case float32:
		return pubsub.HeaderFloat, strconv.FormatFloat(float64(v), 'g', -1, 32)
	case float64:
		return pubsub.HeaderFloat, strconv.FormatFloat(v, 'g', -1, 64)
	case bool:
		return pubsub.HeaderBool, strconv.FormatBool(v)
	case time.Time:
		return pubsub.HeaderTime, v.UTC().Format(time.RFC3339)
	}
	return pubsub.HeaderNative, formatNative(v)
}

// decode reads what encode wrote, or any other client.
func decode(d *amqp.Delivery) *pubsub.Message {
	m := &pubsub.Message{ID: d.MessageId, Type: d.Type, ContentType: d.ContentType, Payload: d.Body, Key: text(d.Headers[hdrKey])}
	if m.Payload == nil {
		m.Payload = []byte{}
	}
	if !d.Timestamp.IsZero() {
		m.Time = d.Timestamp.UTC()
	}
	nanos, ours := d.Headers[hdrNanos]
	if !ours {
		decodeForeign(d, m)
		return m
	}
	if n, ok := integer(nanos); ok && n >= 0 && n < int64(time.Second) {
		m.Time = m.Time.Add(time.Duration(n))
	}
	for name, to := range map[string]*string{hdrID: &m.ID, hdrType: &m.Type, hdrContent: &m.ContentType} {
		if v, ok := d.Headers[name]; ok {
			*to = text(v)
		}
	}
	if _, isNil := d.Headers[hdrNil]; isNil && len(m.Payload) == 0 {
		m.Payload = nil
	}
	list, listed := d.Headers[hdrList]
	if !listed {
		for name, v := range d.Headers { // one at most, besides what the broker has added
			if !meant(name) {
				kind, text := describe(v)
				m.Headers = append(m.Headers, pubsub.Header{Name: name, Value: text, Kind: kind})
			}
		}
		return m
	}
	entries := strings.Split(text(list), ",")
	m.Headers = make(pubsub.Headers, 0, len(entries))
	for i, entry := range entries {
		name, kind, named := strings.Cut(entry, ";")
		h := pubsub.Header{Name: unescape(name)}
		v, ok := d.Headers[hdrAlias+strconv.Itoa(i)]
		if !ok {
			if v, ok = d.Headers[h.Name]; !ok {
				continue // somebody has taken it away
			}
		}
		if h.Kind, h.Value = describe(v); named {
			h.Kind, h.Value = pubsub.HeaderKind(max(0, slices.Index(kindNames(), kind))), text(v)
		}
		m.Headers = append(m.Headers, h)
	}
	return m
}

func decodeForeign(d *amqp.Delivery, m *pubsub.Message) {
	for name, v := range d.Headers {
		if name != hdrKey && !counted(name) {
			kind, text := describe(v)
			m.Headers = append(m.Headers, pubsub.Header{Name: name, Value: text, Kind: kind})
		}
	}
	for name, value := range map[string]string{
		"amqp-app-id": d.AppId, "amqp-content-encoding": d.ContentEncoding, "amqp-correlation-id": d.CorrelationId, "amqp-expiration": d.Expiration,
		"amqp-reply-to": d.ReplyTo, "amqp-user-id": d.UserId,
	} {
		if _, taken := d.Headers[name]; value != "" && !taken {
			m.Headers = append(m.Headers, pubsub.Header{Name: name, Value: value})
		}
	}
	slices.SortFunc(m.Headers, func(a, b pubsub.Header) int { return strings.Compare(a.Name, b.Name) })
}

// text is a value that was written as text: a stream gives back what is no UTF-8 as bytes.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	}
	return ""
}

// integer is a value of any of AMQP's integers.
func integer(v any) (n int64, ok bool) {
	switch v := v.(type) {
	case int8:
		return int64(v), true
	case int16:
		return int64(v), true
	case int32:
		return int64(v), true
	case int64:
		return v, true
	case uint8:
		return int64(v), true
	case uint16:
		return int64(v), true
	case uint32:
		return int64(v), true
	}
	return 0, false
}

// failures reads hdrFailed.
func failures(h amqp.Table) int32 {
	n, _ := integer(h[hdrFailed])
	return int32(min(max(n, 0), math.MaxInt32))
}

// headerBytes is about what a message's header takes on the wire; all of it has to fit into one frame.
func headerBytes(p *amqp.Publishing) int {
	n := 64 + len(p.MessageId) + len(p.Type) + len(p.ContentType)
	for name, v := range p.Headers {
		n += len(name) + 16
		switch v := v.(type) {
		case string:
			n += len(v)
		case amqp.Table, []any, []byte:
			n += len(formatNative(v)) // never less than it takes
		}
	}
	return n
}

func escape(b *strings.Builder, s string) {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' || c == ',' || c == ';' {
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
}

// unescape undoes escape; what no escape has written stays.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b = append(b, byte(c))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}
