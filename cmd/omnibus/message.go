package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A text is bytes in JSON: a string where they are UTF-8, else {"base64": "..."}, so that nothing is changed on the way.
type text string

func (t text) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(t)) {
		return marshal(string(t))
	}
	return marshal(struct {
		Base64 []byte `json:"base64"`
	}{[]byte(t)})
}

func (t *text) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err == nil {
		*t = text(s)
		return nil
	}
	var coded struct {
		Base64 []byte `json:"base64"`
	}
	if err := json.Unmarshal(b, &coded); err != nil {
		return errors.New(`a text is a string or {"base64": "..."}`)
	}
	*t = text(coded.Base64)
	return nil
}

// A message is a line of what sub writes and pub reads.
type message struct {
	Topic       text     `json:"topic,omitempty"`
	ID          text     `json:"id,omitempty"`
	Type        text     `json:"type,omitempty"`
	Key         text     `json:"key,omitempty"`
	ContentType text     `json:"content_type,omitempty"`
	Headers     []header `json:"headers,omitempty"`
	Time        *stamp   `json:"time,omitempty"`
	TTL         duration `json:"ttl,omitempty"`
	Priority    uint8    `json:"priority,omitempty"`
	Payload     *text    `json:"payload"` // null and empty are kept apart

	// of what was received
	Group      string `json:"group,omitempty"`
	Position   string `json:"position,omitempty"`
	Attempt    int    `json:"attempt,omitempty"`
	Deliveries int    `json:"deliveries,omitempty"`
	Bad        string `json:"bad,omitempty"` // why it cannot be decoded: then it is as it lies there
}

type header struct {
	Name  text   `json:"name"`
	Value text   `json:"value"`
	Kind  string `json:"kind,omitempty"` // "" = text
}

type stamp = time.Time

// A duration is written as Go does: "1m30s".
type duration time.Duration

func (d duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

func (d *duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := time.ParseDuration(s)
	*d = duration(v)
	return err
}

// kinds are the names of pubsub's kinds of headers.
func kinds() []string { return []string{"", "null", "int", "float", "bool", "time", "native"} }

func messageOf(topic string, m *pubsub.Message) message {
	out := message{Topic: text(topic), ID: text(m.ID), Type: text(m.Type), Key: text(m.Key), ContentType: text(m.ContentType),
		TTL: duration(m.TTL), Priority: m.Priority}
	if !m.Time.IsZero() {
		t := m.Time.UTC()
		out.Time = &t
	}
	if m.Payload != nil {
		t := text(m.Payload)
		out.Payload = &t
	}
	for _, h := range m.Headers {
		if enginesOwn(h.Name) {
			continue
		}
		kind := "native"
		if int(h.Kind) < len(kinds()) {
			kind = kinds()[h.Kind]
		}
		out.Headers = append(out.Headers, header{text(h.Name), text(h.Value), kind})
	}
	return out
}

// enginesOwn says whether a header is one of the engine's: nobody may publish it. Those of dead letters and replays can be.
func enginesOwn(name string) bool {
	return strings.HasPrefix(name, "omnibus-") && !strings.HasPrefix(name, "omnibus-dlq-") && !strings.HasPrefix(name, "omnibus-replay")
}

// readMessage reads a line of JSON. What it does not know is refused, and so is anything behind it: nothing of a line is passed over.
func readMessage(line []byte) (m message, err error) {
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return m, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return m, errors.New("something follows the message: each has a line of its own")
	}
	return m, nil
}

// pubsub is the message to publish.
func (m message) pubsub() (pubsub.Message, error) {
	out := pubsub.Message{ID: string(m.ID), Type: string(m.Type), Key: string(m.Key), ContentType: string(m.ContentType),
		TTL: time.Duration(m.TTL), Priority: m.Priority}
	if m.Time != nil {
		out.Time = *m.Time
	}
	if m.Payload != nil {
		out.Payload = []byte(*m.Payload)
	}
	for _, h := range m.Headers {
		kind := -1
		for i, k := range kinds() {
			if k == h.Kind {
				kind = i
			}
		}
		if kind < 0 {
			return out, fmt.Errorf("the header %q has the kind %q; there are %s", h.Name, h.Kind, strings.Join(kinds()[1:], ", "))
		}
		out.Headers = append(out.Headers, pubsub.Header{Name: string(h.Name), Value: string(h.Value), Kind: pubsub.HeaderKind(kind)})
	}
	return out, nil
}

// pretty writes a message for people: a line of what it is, its headers, its payload.
func (o *output) pretty(m message) string {
	var b strings.Builder
	if m.Time != nil {
		b.WriteString(o.paint(dim, m.Time.Format("2006-01-02T15:04:05.000Z")) + " ")
	}
	b.WriteString(o.paint(bold, printable(string(m.Topic), false)))
	add := func(name, value string) {
		if value != "" {
			b.WriteString(" " + o.paint(dim, name+"=") + o.paint(cyan, printable(value, false)))
		}
	}
	add("at", m.Position)
	add("key", string(m.Key))
	add("type", string(m.Type))
	add("id", string(m.ID))
	if m.Attempt > 1 {
		add("attempt", strconv.Itoa(m.Attempt))
	}
	add("bad", m.Bad)
	b.WriteString("\n")
	for _, h := range m.Headers {
		value := printable(string(h.Value), false)
		if h.Kind != "" {
			value += " (" + h.Kind + ")"
		}
		b.WriteString("  " + o.paint(dim, printable(string(h.Name), false)+": "+value) + "\n")
	}
	switch {
	case m.Payload == nil:
		b.WriteString("  " + o.paint(dim, "(no payload)") + "\n")
	case *m.Payload == "":
		b.WriteString("  " + o.paint(dim, "(empty)") + "\n")
	default:
		payload := strings.TrimSuffix(printable(string(*m.Payload), true), "\n")
		b.WriteString("  " + strings.ReplaceAll(payload, "\n", "\n  ") + "\n")
	}
	return b.String()
}

// show writes a message in the form that was asked for.
func (o *output) show(m message) error {
	if o.json {
		return o.value(m)
	}
	return o.write(o.pretty(m))
}
