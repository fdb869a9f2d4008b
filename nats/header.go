package nats

import (
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"

	client "github.com/nats-io/nats.go"

	"github.com/omnibus-go/omnibus/pubsub"
)

// The wire format. The payload is the body. ID, type, key and time are headers of ours, whose names begin with "Omnibus-"; the content type
// is Content-Type. A user's header is a NATS header of the same name. NATS keeps neither the order of headers with different names nor
// every byte, so a message of ours (it has Omnibus-Id) follows one rule:
//
//   - In values "%", control characters (also 0x7f) and blanks at either end are written as "%" and two hexadecimal digits.
//   - In names the same goes for all but letters, digits and !#$&'*+-.^_`|~, and for the first letter of a name that NATS or
//     this format gives a meaning: it begins with "nats-" or "omnibus-" (whatever the case of the former) or is Content-Type.
//     The empty name is "%".
//   - Omnibus-Headers lists the names in their order, separated by commas, if there are several or one has a kind: "a,b;int,a".
//   - Omnibus-Nil says that the payload is nil, not empty.
//
// A message of any other client is read as it is, its headers sorted by name, Content-Type also as Message.ContentType.
const (
	hdrID      = "Omnibus-Id"
	hdrType    = "Omnibus-Type"
	hdrKey     = "Omnibus-Key"
	hdrTime    = "Omnibus-Time" // RFC 3339 with nanoseconds, UTC
	hdrContent = "Content-Type"
	hdrOrder   = "Omnibus-Headers"
	hdrNil     = "Omnibus-Nil"
	hdrFailed  = "Omnibus-Failed" // of a retry: the group's failures so far
	hdrDue     = "Omnibus-Due"    // of a retry: not before this time, as hdrTime
	hdrTopic   = "Omnibus-Topic"  // of a retry: the concrete topic, where the group's is a pattern
	hdrSource  = "Omnibus-Source" // of a retry: the position of the original
	noName     = "%"
)

var kindNames = [...]string{"", ";null", ";int", ";float", ";bool", ";time", ";native"}

// encode writes a message into m, whose subject is set. Nothing of it is shared with msg but the payload, which never changes.
func encode(m *client.Msg, msg *pubsub.Message, id pubsub.Dedup) {
	m.Data = msg.Payload
	h := make(client.Header, 5)
	values := make([]string, 0, 8) // one backing array for the lists of one
	set := func(name, value string) {
		values = append(values, value)
		h[name] = values[len(values)-1 : len(values) : len(values)]
	}
	var room [96]byte // one string for both
	text := msg.Time.UTC().AppendFormat(room[:0], time.RFC3339Nano)
	at := len(text)
	if id != (pubsub.Dedup{}) {
		text = hex.AppendEncode(text, id[:])
	}
	both := string(text)
	set(hdrTime, both[:at])
	if at < len(both) {
		set(client.MsgIdHdr, both[at:])
	}
	set(hdrID, escapeValue(msg.ID))
	if msg.Key != "" {
		set(hdrKey, escapeValue(msg.Key))
	}
	if msg.Type != "" {
		set(hdrType, escapeValue(msg.Type))
	}
	if msg.ContentType != "" {
		set(hdrContent, escapeValue(msg.ContentType))
	}
	if msg.Payload == nil {
		set(hdrNil, "1")
	}
	listed := len(msg.Headers) > 1
	var order strings.Builder
	for i := range msg.Headers {
		x := &msg.Headers[i]
		name := escapeName(x.Name)
		h[name] = append(h[name], escapeValue(x.Value))
		if i > 0 {
			order.WriteByte(',')
		}
		order.WriteString(name)
		if x.Kind != pubsub.HeaderText && int(x.Kind) < len(kindNames) {
			order.WriteString(kindNames[x.Kind])
			listed = true
		}
	}
	if listed {
		set(hdrOrder, order.String())
	}
	m.Header = h
}

// decode reads what encode wrote, or any other client.
func decode(m *client.Msg) *pubsub.Message {
	msg := &pubsub.Message{Payload: m.Data}
	if msg.Payload == nil {
		msg.Payload = []byte{}
	}
	h := m.Header
	id, ours := h[hdrID]
	if !ours {
		decodeForeign(h, msg)
		return msg
	}
	first := func(name string) string {
		if v := h[name]; len(v) > 0 {
			return unescape(v[0])
		}
		return ""
	}
	msg.ID = unescape(id[0])
	msg.Key, msg.Type, msg.ContentType = first(hdrKey), first(hdrType), first(hdrContent)
	msg.Time, _ = time.Parse(time.RFC3339Nano, first(hdrTime))
	if _, isNil := h[hdrNil]; isNil && len(msg.Payload) == 0 {
		msg.Payload = nil
	}
	if order := h[hdrOrder]; len(order) > 0 {
		seen := map[string]int{}
		for entry := range strings.SplitSeq(order[0], ",") {
			name, kind, _ := strings.Cut(entry, ";")
			i := seen[name]
			seen[name]++
			if i >= len(h[name]) {
				continue // somebody has taken it away
			}
			k := pubsub.HeaderText
			if kind != "" {
				k = pubsub.HeaderKind(max(0, slices.Index(kindNames[:], ";"+kind)))
			}
			msg.Headers = append(msg.Headers, pubsub.Header{Name: unescapeName(name), Value: unescape(h[name][i]), Kind: k})
		}
		return msg
	}
	for name, values := range h {
		if reserved(name) {
			continue
		}
		for _, v := range values {
			msg.Headers = append(msg.Headers, pubsub.Header{Name: unescapeName(name), Value: unescape(v)})
		}
	}
	return msg
}

func decodeForeign(h client.Header, msg *pubsub.Message) {
	names := make([]string, 0, len(h))
	for name := range h {
		if name != "Nats-Pin-Id" { // the server's, for us
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		for i, v := range h[name] {
			switch {
			case name == hdrContent && i == 0:
				msg.ContentType = v
			case name == hdrKey && i == 0:
				msg.Key = v
			case name == hdrType && i == 0:
				msg.Type = v
			default:
				msg.Headers = append(msg.Headers, pubsub.Header{Name: name, Value: v})
			}
		}
	}
	msg.ID = h.Get(client.MsgIdHdr)
}

// reserved says whether a header's name has a meaning of its own in this format.
func reserved(name string) bool {
	return strings.HasPrefix(name, "Omnibus-") || len(name) >= 5 && strings.EqualFold(name[:5], "nats-") || name == hdrContent
}

func escapeValue(s string) string {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '%' || c == 0x7f || c == ' ' && (i == 0 || i == len(s)-1) {
			return escape(s, func(i int, c byte) bool {
				return c < ' ' || c == '%' || c == 0x7f || c == ' ' && (i == 0 || i == len(s)-1)
			})
		}
	}
	return s
}

func escapeName(s string) string {
	if s == "" {
		return noName
	}
	mustEscape := func(i int, c byte) bool { return i == 0 && reserved(s) || !nameByte(c) }
	for i := range len(s) {
		if mustEscape(i, s[i]) {
			return escape(s, mustEscape)
		}
	}
	return s
}

func unescapeName(s string) string {
	if s == noName {
		return ""
	}
	return unescape(s)
}

func nameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$&'*+-.^_`|~", c) >= 0
}

func escape(s string, must func(i int, c byte) bool) string {
	const digits = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+16)
	for i := range len(s) {
		if c := s[i]; must(i, c) {
			b = append(b, '%', digits[c>>4], digits[c&15])
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}

// unescape undoes escape; what no escape has written stays.
func unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 {
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
