package dlq

import (
	"context"
	"fmt"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A GroupStatus is how far somebody has come with the dead letters of one fingerprint.
type GroupStatus string

const (
	GroupOpen         GroupStatus = "open"         // nobody has said anything, or it was resolved and has come again
	GroupAcknowledged GroupStatus = "acknowledged" // somebody looks into it; more of them do not change that
	GroupResolved     GroupStatus = "resolved"     // its cause is mended; it is open again when it recurs after that
	GroupIgnored      GroupStatus = "ignored"      // nobody will; more of them do not change that
)

// SetGroup gives the group of a fingerprint a status, and a note in Note.Why. Its dead letters stay as they are. A fingerprint of which there is no dead letter
// is an ErrNotFound.
func (q *Queue) SetGroup(ctx context.Context, fingerprint string, status GroupStatus, n Note) error {
	switch status {
	case GroupOpen, GroupAcknowledged, GroupResolved, GroupIgnored:
	default:
		return q.fail("group", pubsub.ErrInvalid, fmt.Errorf("%q is no status of a group", status), "")
	}
	if err := q.keepsState("group"); err != nil {
		return err
	}
	e := Entry{Operation: OpGroup, Group: fingerprint, Status: status}
	known := false
	for r, err := range q.browse(ctx, pubsub.Position{}) {
		if err != nil {
			return err
		}
		if r.Fingerprint == fingerprint {
			known = true
			if r.when().After(e.Through) {
				e.Through = r.when()
			}
		}
	}
	if !known {
		return q.fail("group", pubsub.ErrNotFound, fmt.Errorf("there is no dead letter with the fingerprint %q", fingerprint), "")
	}
	return q.tell(ctx, e, n)
}

// follow gives a group the status that it was given last, and opens it where it has come since. Whether it has is told by the times of failures, so the clock
// of the member that saw the last one before counts.
func (g *Group) follow(known *states) {
	g.Status = GroupOpen
	e, ok := known.groups[g.Fingerprint]
	if !ok {
		return
	}
	g.StatusSince, g.StatusBy, g.Note = e.At, e.By, e.Why
	g.Reopened = e.Status == GroupResolved && known.recurs[g.Fingerprint]
	if !g.Reopened {
		g.Status = e.Status
	}
}
