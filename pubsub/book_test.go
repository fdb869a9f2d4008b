package pubsub

import (
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/deadevent"
)

// A dead letter that the broker has of somebody else, and for which it took ours for a duplicate, was put behind its followers: these could be replayed before it.
func TestDuplicateKeepsItsTurn(t *testing.T) {
	made := func(id, message string, stored time.Time) *letter {
		return &letter{Life: deadevent.Life{ID: id, Message: message}, key: "k", source: "at " + message, stored: stored}
	}
	replayed := func(l *letter) *Message {
		return &Message{ID: l.Message, Key: l.key, Headers: Headers{{Name: headerReplayOf, Value: l.ID}}}
	}
	b := newBook()
	ours, follower, theirs := made("ours", "1", time.Now()), made("follower", "2", time.Now()), made("theirs", "1", time.Time{})
	b.add(ours)
	b.add(follower)
	b.add(theirs)
	if got := b.before(replayed(follower), true); got != theirs {
		t.Errorf("a follower may not be handled because of %+v", got)
	}
	if got := b.before(replayed(theirs), true); got != nil {
		t.Errorf("the first may not be handled because of %+v", got)
	}
	b.note(&deadevent.Event{Operation: deadevent.Resolved, IDs: deadevent.Texts{"theirs"}, Messages: deadevent.Texts{"1"}})
	if got := b.before(replayed(follower), true); got != nil {
		t.Errorf("the follower may not be handled because of %+v", got)
	}
	if got := b.before(&Message{ID: "3", Key: "k"}, false); got != follower {
		t.Errorf("what is published may not be handled because of %+v", got)
	}
	if b.missing(time.Now()); len(b.open) != 0 {
		t.Errorf("what no look shows still blocks: %+v", b.open)
	}
}
