package dlq

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/omnibus-go/omnibus/pubsub"
)

// An Edit says how a dead letter is changed. The zero value changes nothing: an edit is off unless Allow says otherwise.
type Edit struct {
	Allow  bool                        // whoever sets it answers for what the group is to be given under another's name
	Change func(*pubsub.Message) error // gets a copy of Record.Message; an error of it ends the edit
	Note   Note                        // who edits, and why, for the audit record
}

// Headers of middleware that binds or hides what a message has in it.
const (
	headerSignature  = "omnisig"
	headerEncryption = "omnienc"
)

// Edit stores a changed copy of a dead letter, with an ID of its own, and discards the original, which stays as it was. It returns the ID of the copy. The copy's
// message has a new ID, too, unless Change gives it one: who remembers the IDs that it has handled does not take it for the original.
//
// It is an ErrDenied where it is not allowed, and an ErrInvalid for what is signed or encrypted, for what cannot be decoded, and for what is still at
// its source: an edit would not make of it what its publisher has sent. A process that dies in between leaves both open; then the original is to be discarded.
func (q *Queue) Edit(ctx context.Context, id string, o Edit) (string, error) {
	if !o.Allow {
		return "", q.fail("edit", pubsub.ErrDenied, errors.New("Edit.Allow is not set"), "")
	}
	if o.Change == nil {
		return "", q.fail("edit", pubsub.ErrInvalid, errors.New("Edit.Change is nil"), "")
	}
	if err := q.keepsState("edit"); err != nil {
		return "", err
	}
	r, err := q.Show(ctx, id)
	if err != nil {
		return "", err
	}
	if why := r.unchangeable(); why != "" {
		return "", q.fail("edit", pubsub.ErrInvalid, fmt.Errorf("dead letter %q %s", id, why), "")
	}
	m := r.Message.Clone()
	m.ID = rand.Text()
	if err := o.Change(&m); err != nil {
		return "", q.fail("edit", pubsub.ErrRefused, err, "")
	}
	if slices.ContainsFunc(m.Headers, func(h pubsub.Header) bool { return ownHeader(h.Name) }) {
		return "", q.fail("edit", pubsub.ErrInvalid, errors.New("Edit.Change has added a header of the engine"), "")
	}
	next := rand.Text()
	m.Headers = append(slices.Clip(m.Headers), pubsub.Header{Name: headerDead + "id", Value: next}, pubsub.Header{Name: headerDead + "edit-of", Value: id})
	for _, h := range r.Stored.Headers { // what the record tells of the failure, and how often it was replayed
		if ownHeader(h.Name) && h.Name != headerDead+"id" && h.Name != headerDead+"edit-of" {
			m.Headers = append(m.Headers, h)
		}
	}
	var token pubsub.Dedup
	sum := hash("edit", next)
	copy(token[:], sum[:])
	if err := q.store(ctx, q.b, q.place, m, token); err != nil {
		return "", err
	}
	return next, q.tell(ctx, Entry{Operation: OpEdit, IDs: []string{id, next}}, o.Note)
}

// unchangeable says why a dead letter cannot be edited, "" if it can.
func (r *Record) unchangeable() string {
	switch {
	case r.undecodable:
		return "cannot be decoded"
	case r.AtSource:
		return "is still at its source"
	}
	for _, h := range r.Message.Headers {
		if strings.EqualFold(h.Name, headerSignature) || strings.EqualFold(h.Name, headerEncryption) {
			return "is signed or encrypted"
		}
	}
	return ""
}
