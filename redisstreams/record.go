package redisstreams

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// An entry of a stream is a list of fields, whose names and values may be any bytes and whose names may repeat, so there is little to encode:
//
//   - "payload" is the payload. Without it the payload is nil.
//   - ":id", ":key", ":type" and ":mime" are Message.ID, Key, Type and ContentType. What is empty is left out, but for the id.
//   - ":at" is Message.Time: nanoseconds since 1970, or RFC 3339 for times which these cannot tell.
//   - Any other field is a header of that name, in its order. A header whose name is "payload" or begins with ":", or that has a kind, is written
//     with ":h", the number of its kind, and ":" before its name: ":h0:payload", ":h2:count".
//
// What other clients write is read by the same rules. Where it cannot be, since a ":at" is no time, say, the message has the fields as headers, as they are.
const (
	fieldID      = ":id"
	fieldAt      = ":at"
	fieldKey     = ":key"
	fieldType    = ":type"
	fieldMime    = ":mime"
	fieldPayload = "payload"
	headerPrefix = ":h"
)

var minUnixNano, maxUnixNano = time.Unix(0, math.MinInt64), time.Unix(0, math.MaxInt64)

// encode appends the fields of a message. Pointers cost less than values in an interface; what they point to never changes.
func encode(args []any, m *pubsub.Message) []any {
	args = append(args, fieldID, &m.ID, fieldAt)
	if m.Time.Before(minUnixNano) || m.Time.After(maxUnixNano) {
		args = append(args, m.Time.UTC().Format(time.RFC3339Nano))
	} else {
		args = append(args, m.Time.UnixNano())
	}
	for _, x := range [...]struct {
		name  string
		value *string
	}{{fieldKey, &m.Key}, {fieldType, &m.Type}, {fieldMime, &m.ContentType}} {
		if *x.value != "" {
			args = append(args, x.name, x.value)
		}
	}
	for i := range m.Headers {
		h := &m.Headers[i]
		if h.Kind == pubsub.HeaderText && h.Name != fieldPayload && !strings.HasPrefix(h.Name, ":") {
			args = append(args, &h.Name, &h.Value)
		} else {
			args = append(args, headerPrefix+strconv.Itoa(int(h.Kind))+":"+h.Name, &h.Value)
		}
	}
	if m.Payload != nil {
		args = append(args, fieldPayload, m.Payload)
	}
	return args
}

// A decoder makes messages of fields. It keeps nothing of these: a message that waits is not to hold the answer in which it came.
type decoder struct {
	texts []byte
	spans []span
}

// A span is a name and a value among the texts.
type span struct {
	from, mid, to int
	kind          pubsub.HeaderKind
	own           string // the field, if it is no header
}

// decode fills m. An error says why the message cannot be understood; m then has what there is.
func (d *decoder) decode(m *pubsub.Message, fields [][]byte) error {
	err := d.split(m, fields, false)
	if err != nil {
		*m = pubsub.Message{}
		_ = d.split(m, fields, true) // raw, which always can be done
	}
	texts := string(d.texts)
	headers := 0
	for _, s := range d.spans {
		if s.own == "" {
			headers++
		}
	}
	if headers > 0 {
		m.Headers = make(pubsub.Headers, 0, headers)
	}
	for _, s := range d.spans {
		value := texts[s.mid:s.to]
		switch s.own {
		case "":
			m.Headers = append(m.Headers, pubsub.Header{Name: texts[s.from:s.mid], Value: value, Kind: s.kind})
		case fieldID:
			m.ID = value
		case fieldKey:
			m.Key = value
		case fieldType:
			m.Type = value
		case fieldMime:
			m.ContentType = value
		}
	}
	return err
}

// split sorts the fields.
func (d *decoder) split(m *pubsub.Message, fields [][]byte, raw bool) error {
	d.texts, d.spans = d.texts[:0], d.spans[:0]
	seen := 0 // those that may come once
	for i := 0; i < len(fields); i += 2 {
		name, value := fields[i], fields[i+1]
		s := span{}
		once := 0
		switch string(name) {
		case fieldPayload:
			once = 1
			if seen&once == 0 {
				if m.Payload = bytes.Clone(value); m.Payload == nil {
					m.Payload = []byte{}
				}
				seen |= once
				continue
			}
		case fieldAt:
			if once = 2; !raw {
				at, err := parseTime(value)
				if err != nil {
					return fmt.Errorf("the field %q has the value %.40q: %w", name, value, err)
				}
				if seen&once == 0 {
					m.Time = at
					seen |= once
					continue
				}
			}
		case fieldID:
			once, s.own = 4, fieldID
		case fieldKey:
			once, s.own = 8, fieldKey
		case fieldType:
			once, s.own = 16, fieldType
		case fieldMime:
			once, s.own = 32, fieldMime
		}
		switch {
		case raw:
			s.own = ""
		case once != 0 && seen&once != 0:
			return fmt.Errorf("there are two fields %q", name)
		case once == 0 && len(name) > 0 && name[0] == ':':
			kind, rest, ok := headerKind(name)
			if !ok {
				return fmt.Errorf("the field %.40q begins with a colon and is none of ours", name)
			}
			s.kind, name = kind, rest
		}
		seen |= once
		s.from = len(d.texts)
		if s.own == "" {
			d.texts = append(d.texts, name...)
		}
		s.mid = len(d.texts)
		d.texts = append(d.texts, value...)
		s.to = len(d.texts)
		d.spans = append(d.spans, s)
	}
	return nil
}

// headerKind takes a field apart that is a header with a kind.
func headerKind(field []byte) (kind pubsub.HeaderKind, name []byte, ok bool) {
	rest, ok := bytes.CutPrefix(field, []byte(headerPrefix))
	if !ok || len(rest) < 2 || rest[1] != ':' || rest[0] < '0' || rest[0] > '0'+byte(pubsub.HeaderNative) {
		return 0, nil, false
	}
	return pubsub.HeaderKind(rest[0] - '0'), rest[2:], true
}

func parseTime(b []byte) (time.Time, error) {
	if ns, err := strconv.ParseInt(string(b), 10, 64); err == nil {
		return time.Unix(0, ns).UTC(), nil
	}
	return time.Parse(time.RFC3339Nano, string(b))
}
