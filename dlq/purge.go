package dlq

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A Purge is a beginning of the dead letters that is to be removed for good. A log can lose no more than its beginning, so there is no filter: what nobody wants
// any more but has others before it is discarded, see Queue.Discard.
type Purge struct {
	Count       int             // of dead letters
	UpTo        pubsub.Position // of the last of them
	First, Last time.Time       // of their failures
	States      map[State]int   // how many of Count have which state: what is open would be lost
	Sample      []Record        // up to ten of the first

	q    *Queue
	note Note
}

// PlanPurge counts the dead letters before the first one that failed at a time or later; the zero time means all that are there now. It removes nothing.
// A Queue of OpenTopic is an ErrUnsupported, and so is a broker that tells no positions.
func (q *Queue) PlanPurge(ctx context.Context, before time.Time, n Note) (*Purge, error) {
	if err := q.keepsState("purge"); err != nil {
		return nil, err
	}
	known, err := q.states(ctx)
	if err != nil {
		return nil, err
	}
	p := &Purge{States: map[State]int{}, q: q, note: n}
	for r, err := range q.browse(ctx, pubsub.Position{}) {
		if err != nil {
			return nil, err
		}
		if !before.IsZero() && !r.when().Before(before) {
			break
		}
		if r.Position == (pubsub.Position{}) {
			return nil, q.fail("purge", pubsub.ErrUnsupported, errors.New("the broker tells no positions"), "")
		}
		known.mark(&r)
		p.Count++
		p.States[r.State]++
		p.UpTo = r.Position
		if at := r.when(); p.First.IsZero() || at.Before(p.First) {
			p.First = at
		}
		if at := r.when(); at.After(p.Last) {
			p.Last = at
		}
		if len(p.Sample) < sampleSize {
			p.Sample = append(p.Sample, r)
		}
	}
	return p, nil
}

// Run removes them, where confirmed is Count: else it is an ErrInvalid, and nothing is removed. They do not come back. What was done to them stays in the
// audit record, and that they are to be removed is written there first; where that then fails, a second entry says so. A broker that cannot remove the beginning of what it keeps is an ErrUnsupported.
func (p *Purge) Run(ctx context.Context, confirmed int) error {
	if confirmed != p.Count {
		return p.q.fail("purge", pubsub.ErrInvalid, fmt.Errorf("%d dead letters would be removed, and %d are confirmed", p.Count, confirmed), "")
	}
	if p.Count == 0 {
		return nil
	}
	if err := p.q.b.Purge(ctx, p.q.place, pubsub.Position{}); !errors.Is(err, pubsub.ErrInvalid) { // it cannot at all
		return err
	}
	if err := p.q.tell(ctx, Entry{Operation: OpPurge, Total: p.Count, Text: "up to " + p.UpTo.String()}, p.note); err != nil {
		return err
	}
	err := p.q.b.Purge(ctx, p.q.place, p.UpTo)
	if err != nil {
		_ = p.q.tell(ctx, Entry{Operation: OpPurge, Text: "failed: " + err.Error()}, p.note) // the caller hears of the first error
	}
	return err
}
