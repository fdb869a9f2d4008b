package dlq

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/omnibus-go/omnibus/internal/deadevent"
	"github.com/omnibus-go/omnibus/pubsub"
)

// The form of an export: a line of JSON for each dead letter.
const exportSchema = "omnibus.deadletter/1"

// exported is a dead letter as it lies there.
type exported struct {
	Schema      string         `json:"schema"`
	ID          deadevent.Text `json:"id"` // Record.ID; of one that has none of its own it is another where it is imported
	Position    string         `json:"position,omitempty"`
	Undecodable string         `json:"undecodable,omitempty"` // why; then the rest is what there is, and cannot be imported
	Message     exportedFields `json:"message"`
}

type exportedFields struct {
	ID          deadevent.Text   `json:"id"`
	Type        deadevent.Text   `json:"type,omitzero"`
	Key         deadevent.Text   `json:"key,omitzero"`
	ContentType deadevent.Text   `json:"content_type,omitzero"`
	Time        time.Time        `json:"time,omitzero"`
	Payload     []byte           `json:"payload"` // base64; null = none
	Headers     []exportedHeader `json:"headers,omitempty"`
}

type exportedHeader struct {
	Name  deadevent.Text    `json:"name"`
	Value deadevent.Text    `json:"value"`
	Kind  pubsub.HeaderKind `json:"kind,omitempty"`
}

// Export writes the dead letters that a filter selects, as they lie there, and returns how many: a line of JSON for each, the oldest first, with every byte of
// payload, key and headers. What became of them is not in it. Nothing of it is encrypted, and nothing is left out.
func (q *Queue) Export(ctx context.Context, w io.Writer, f Filter) (n int, err error) {
	for r, err := range q.List(ctx, f) {
		if err != nil {
			return n, err
		}
		line, err := json.Marshal(export(&r))
		if err != nil { // a time beyond the year 9999
			return n, q.fail("export", pubsub.ErrInvalid, fmt.Errorf("dead letter %q: %w", r.ID, err), "")
		}
		if _, err := w.Write(append(line, '\n')); err != nil {
			return n, q.fail("export", pubsub.ErrUnavailable, err, "")
		}
		n++
	}
	return n, nil
}

func export(r *Record) exported {
	m := &r.Stored
	x := exported{Schema: exportSchema, ID: deadevent.Text(r.ID), Message: exportedFields{
		ID: deadevent.Text(m.ID), Type: deadevent.Text(m.Type), Key: deadevent.Text(m.Key), ContentType: deadevent.Text(m.ContentType), Time: m.Time, Payload: m.Payload,
	}}
	if r.Position != (pubsub.Position{}) {
		x.Position = r.Position.String()
	}
	if r.undecodable {
		x.Undecodable = r.Bad.Error()
	}
	for _, h := range m.Headers {
		x.Message.Headers = append(x.Message.Headers, exportedHeader{deadevent.Text(h.Name), deadevent.Text(h.Value), h.Kind})
	}
	return x
}

func (x *exportedFields) message() pubsub.Message {
	m := pubsub.Message{
		ID: string(x.ID), Type: string(x.Type), Key: string(x.Key), ContentType: string(x.ContentType), Time: x.Time, Payload: x.Payload,
	}
	for _, h := range x.Headers {
		m.Headers = append(m.Headers, pubsub.Header{Name: string(h.Name), Value: string(h.Value), Kind: h.Kind})
	}
	return m
}
