package dlq

import (
	"context"
	"crypto/rand"
	"slices"
	"strconv"
	"sync"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A Plan is a selection of dead letters that does not change any more, and how far it was replayed. Run it, and run it again after an error.
type Plan struct {
	ID      string   // names it in tokens and journals
	Count   int      // of messages
	Sample  []Record // up to ten of the first; nil after Queue.Resume
	Skipped Skipped  // what the filter selects besides, and why it is not in the plan

	q     *Queue
	opts  Replay
	items []item
	known bool // the journal has it

	// of the running Run
	fates    []fate
	failures []Failure
	replayed int
	silent   error // why nothing can be told
	patience int   // how many unclassified answers in a row end a run

	mu      sync.Mutex
	rate    float64
	changed chan struct{} // closed when rate is no longer what it was
}

// Skipped counts what a filter selects and a plan leaves out.
type Skipped struct {
	MaxReplays  int // has been replayed Replay.MaxReplays times
	FailedAgain int // was replayed and has failed again: the new dead letter is here, too
	AtSource    int // is still with its group, see Record.AtSource
	Settled     int // is pending, resolved or discarded, and Filter.States does not name that
}

func (s Skipped) total() int { return s.MaxReplays + s.FailedAgain + s.AtSource + s.Settled }

const sampleSize = 10

// An item is one dead letter of a plan.
type item struct {
	ID string          `json:"id"`
	At pubsub.Position `json:"at,omitzero"`
	N  int             `json:"n,omitempty"` // which one of those with this ID, where there are no positions
}

type fate uint8

const (
	open fate = iota
	replayed
	failed
)

// numbering tells dead letters of one ID apart, in the order of a browse from the beginning.
type numbering map[string]int

func (n numbering) item(r *Record) item {
	it := item{ID: r.ID, At: r.Position}
	if r.Position == (pubsub.Position{}) {
		it.N = n[r.ID]
		n[r.ID]++
	}
	return it
}

// Plan selects what is to be replayed and sends nothing. It reads all dead letters once and keeps, beside the sample, some 100 bytes of each that
// it selects. Where Filter.States is nil it leaves out what is pending, resolved or discarded. Of what failed again it selects the new dead letter, whatever
// the filter says: the old one is the same message.
func (q *Queue) Plan(ctx context.Context, f Filter, o Replay) (*Plan, error) {
	o = o.withDefaults(q)
	if err := o.check(); err != nil {
		return nil, q.fail("replay", pubsub.ErrInvalid, err, "")
	}
	type candidate struct {
		item
		message string // its ID
		replays int
		sample  *Record
	}
	if o.Canary.First > 0 && !q.hearsOutcomes(&o) {
		return nil, q.fail("replay", pubsub.ErrUnsupported, errNoOutcomes, "")
	}
	known, err := q.states(ctx)
	if err != nil {
		return nil, err
	}
	var selected []candidate
	var skipped Skipped
	numbers := numbering{}
	for r, err := range q.browse(ctx, pubsub.Position{}) {
		if err != nil {
			return nil, err
		}
		known.noteReplay(&r)
		known.mark(&r)
		c := candidate{item: numbers.item(&r), message: r.Message.ID, replays: r.Replays}
		if !f.match(&r) {
			continue
		}
		if r.AtSource {
			skipped.AtSource++
			continue
		}
		if f.States == nil && (r.State == StatePending || r.State == StateResolved || r.State == StateDiscarded) {
			skipped.Settled++
			continue
		}
		if o.MaxReplays != pubsub.Unlimited && r.Replays >= o.MaxReplays {
			skipped.MaxReplays++
			continue
		}
		if len(selected) < sampleSize {
			c.sample = &r
		}
		selected = append(selected, c)
	}
	p := q.newPlan(rand.Text(), o)
	for _, c := range selected {
		if known.FailedAgain(life{ID: c.ID, Message: c.message}, c.replays) {
			skipped.FailedAgain++
			continue
		}
		p.items = append(p.items, c.item)
		if c.sample != nil {
			p.Sample = append(p.Sample, *c.sample)
		}
	}
	p.Count, p.Skipped, p.fates = len(p.items), skipped, make([]fate, len(p.items))
	return p, nil
}

func (q *Queue) newPlan(id string, o Replay) *Plan {
	return &Plan{ID: id, q: q, opts: o, rate: o.Rate, patience: maxDoubts, changed: make(chan struct{})}
}

// SetRate changes Replay.Rate, also while Run runs; 0 or less = no bound. It may be called from anywhere.
func (p *Plan) SetRate(perSecond float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate = perSecond
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Plan) currentRate() (float64, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rate, p.changed
}

// target is where a message goes, and false where nobody says.
func (p *Plan) target(r *Record) (pubsub.Place, bool) {
	at := p.q.place
	switch {
	case p.opts.Topic != "":
		return pubsub.Place{Topic: p.opts.Topic}, true
	case at.Kind == pubsub.PlaceDead:
		return pubsub.Place{Topic: at.Topic, Group: at.Group, Kind: pubsub.PlaceRetry}, true
	}
	return pubsub.Place{Topic: r.Topic, Group: r.Group, Kind: pubsub.PlaceRetry}, r.Topic != "" && r.Group != ""
}

// token is the same whenever this plan sends this dead letter, in whatever process.
func (p *Plan) token(it item, to pubsub.Place) (d pubsub.Dedup) {
	sum := hash("replay", p.ID, it.ID, it.At.String(), strconv.Itoa(it.N), to.Topic, to.Group, strconv.Itoa(int(to.Kind)))
	copy(d[:], sum[:])
	return d
}

// restored is the message as it was, with what it says of its replays, and to a pattern's group of its topic.
func restored(r *Record, to pubsub.Place) pubsub.Message {
	m := r.Message
	m.Headers = append(slices.Clip(m.Headers),
		pubsub.Header{Name: headerReplays, Value: strconv.Itoa(r.Replays + 1)}, pubsub.Header{Name: headerReplayOf, Value: r.ID})
	if pubsub.IsPattern(to.Topic) && r.Topic != "" {
		m.Headers = append(m.Headers, pubsub.Header{Name: headerTopic, Value: r.Topic})
	}
	return m
}

func (p *Plan) report() Report {
	return Report{Plan: p.ID, Total: p.Count, Replayed: p.replayed, Skipped: p.Skipped.total(), Failed: len(p.failures), Failures: p.failures, Untold: p.silent}
}

// settle gives an item its fate; err is why it cannot be sent.
func (p *Plan) settle(i int, err error) {
	if p.fates[i] != open {
		return
	}
	if err == nil {
		p.fates[i] = replayed
		p.replayed++
		return
	}
	p.fates[i] = failed
	p.failures = append(p.failures, Failure{ID: p.items[i].ID, Position: p.items[i].At, Err: err})
}
