// Package deadevent is the form of what is written beside a group's dead letters about what became of them: by the engine, and by package dlq.
package deadevent

import (
	"encoding/json"
	"time"
)

// Type is that of its messages.
const Type = "omnibus.dlq-event/1"

// Resolved is the operation of the engine's events: a handler succeeded on what was replayed.
const Resolved = "resolved"

// The operations of package dlq that change what becomes of dead letters.
const (
	Replayed = "replayed"
	Discard  = "discard"
	Restore  = "restore"
	Edit     = "edit"
)

// An Event is one thing that happened to dead letters. Events are appended, and none replaces another.
type Event struct {
	Operation string    `json:"op"`
	At        time.Time `json:"at"`
	By        string    `json:"by,omitempty"`
	Why       string    `json:"why,omitempty"`
	IDs       Texts     `json:"ids,omitempty"`      // of dead letters
	Messages  Texts     `json:"messages,omitempty"` // of Resolved: the IDs of their messages
	Plan      string    `json:"plan,omitempty"`
	Group     string    `json:"group,omitempty"` // a fingerprint
	Status    string    `json:"status,omitempty"`
	Through   time.Time `json:"through,omitzero"` // of a group: its latest failure
	Total     int       `json:"total,omitempty"`
	Done      int       `json:"done,omitempty"`
	Failed    int       `json:"failed,omitempty"`
	Text      string    `json:"text,omitempty"`
}

// The names that one event has: so many, and so long together as they are stored, so that every broker takes it.
const (
	MaxNames = 256
	MaxBytes = 32 << 10
)

// Size is how long a name is as it is stored.
func Size(name string) int64 {
	b, err := Text(name).MarshalJSON()
	if err != nil { // which no text is
		return int64(len(name))
	}
	return int64(len(b) + 1) // and a comma
}

// Room is how long the names of one event may be together, where the broker takes messages of so many bytes, 0 = any.
func Room(maxMessage int64) int64 {
	if maxMessage > 0 {
		return min(MaxBytes, maxMessage/2)
	}
	return MaxBytes
}

// Encode returns the payload of an event, and the key of its message: the dead letter, where it is of one.
func Encode(e *Event) (payload []byte, key string, err error) {
	switch {
	case len(e.IDs) == 1:
		key = e.IDs[0]
	case e.Plan != "":
		key = e.Plan
	default:
		key = e.Group
	}
	payload, err = json.Marshal(e)
	return payload, key, err
}

// Decode reads one; false if it is none.
func Decode(kind string, payload []byte) (e Event, ok bool) {
	if kind != Type || json.Unmarshal(payload, &e) != nil || e.Operation == "" {
		return Event{}, false
	}
	return e, true
}
