package dlq

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/omnibus-go/omnibus/pubsub"
)

// The journal of a replay: lines of JSON, the plan first, then fates by index. What was torn when a process died is a line that cannot be read;
// it says nothing, so its messages are sent again. Fates do not name their plan: a journal is of one.
const journalSchema = "omnibus.replay/1"

type journalPlan struct {
	journalHead
	Skipped Skipped `json:"skipped"`
	Items   []item  `json:"items"`
}

type journalHead struct {
	Schema string           `json:"schema"`
	ID     string           `json:"id"`
	Source string           `json:"source"`
	Group  string           `json:"group,omitempty"`
	Kind   pubsub.PlaceKind `json:"kind"`
	Topic  string           `json:"topic,omitempty"` // Replay.Topic
}

// A journalLine is any line behind the plan. Fates have no schema.
type journalLine struct {
	Schema string `json:"schema"`
	ID     string `json:"id"`
	journalFates
}

type journalFates struct {
	Done   []int           `json:"done,omitempty"`
	Failed []journalFailed `json:"failed,omitempty"`
}

type journalFailed struct {
	Item  int    `json:"item"`
	Code  uint8  `json:"code"`
	Error string `json:"error"`
}

func (p *Plan) head() journalHead {
	at := p.q.place
	return journalHead{Schema: journalSchema, ID: p.ID, Source: at.Topic, Group: at.Group, Kind: at.Kind, Topic: p.opts.Topic}
}

// write puts one line into the journal, if there is one.
func (p *Plan) write(v any) error { return p.writeAfter("", v) }

func (p *Plan) writeAfter(before string, v any) error {
	if p.opts.Journal == nil {
		return nil
	}
	line, err := json.Marshal(v)
	if err == nil {
		_, err = p.opts.Journal.Write(slices.Concat([]byte(before), line, []byte{'\n'}))
	}
	if err != nil {
		return p.q.fail("replay", pubsub.ErrUnavailable, fmt.Errorf("Replay.Journal: %w", err), "without its journal another process could not go on")
	}
	return nil
}

// writePlan puts the plan into a journal that does not have it. It begins a new line in any case: what an earlier process or a failed write left
// there may be half a line, and a plan that is glued to it could not be read.
func (p *Plan) writePlan() error {
	if p.opts.Journal == nil {
		return nil
	}
	var err error
	if p.known {
		if _, err = p.opts.Journal.Write([]byte{'\n'}); err != nil {
			err = p.q.fail("replay", pubsub.ErrUnavailable, fmt.Errorf("Replay.Journal: %w", err), "")
		}
	} else {
		err = p.writeAfter("\n", journalPlan{p.head(), p.Skipped, p.items})
	}
	p.known = err == nil
	return err
}

// Resume reads the journal of a replay that was interrupted and returns its plan, which goes on where that one was. The Queue must be the same
// place, Replay.Topic the same or "", else it is an ErrConflict, and so is a journal with two plans. A journal without a whole plan is an ErrInvalid:
// then nothing was sent. Replay.Journal should append to what journal was read from.
func (q *Queue) Resume(_ context.Context, journal io.Reader, o Replay) (*Plan, error) {
	o = o.withDefaults(q)
	if err := o.check(); err != nil {
		return nil, q.fail("replay", pubsub.ErrInvalid, err, "")
	}
	lines := bufio.NewReader(journal)
	plan, err := readPlan(lines)
	if err != nil {
		return nil, q.fail("replay", pubsub.ErrInvalid, fmt.Errorf("this is no journal of a replay (%w)", err), "make a new plan")
	}
	if o.Topic == "" {
		o.Topic = plan.Topic
	}
	if o.Canary.First > 0 && !q.hearsOutcomes(&o) {
		return nil, q.fail("replay", pubsub.ErrUnsupported, errNoOutcomes, "")
	}
	p := q.newPlan(plan.ID, o)
	if p.head() != plan.journalHead {
		return nil, q.fail("replay", pubsub.ErrConflict, fmt.Errorf("the journal is of %q and group %q, to topic %q", plan.Source, plan.Group, plan.Topic), "")
	}
	p.known, p.Skipped, p.items, p.Count, p.fates = true, plan.Skipped, plan.Items, len(plan.Items), make([]fate, len(plan.Items))
	for {
		line, err := lines.ReadBytes('\n')
		if !p.remember(bytes.TrimSpace(line)) {
			return nil, q.fail("replay", pubsub.ErrConflict, errors.New("the journal has another plan behind the first"), "keep one file per plan")
		}
		if errors.Is(err, io.EOF) {
			return p, nil
		}
		if err != nil {
			return nil, q.fail("replay", pubsub.ErrInvalid, fmt.Errorf("reading the journal: %w", err), "")
		}
	}
}

var errNoPlan = errors.New("no line of it is a plan")

// readPlan skips what is before the plan, such as the half of it that a failed write left.
func readPlan(lines *bufio.Reader) (journalPlan, error) {
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return journalPlan{}, errors.Join(err, errNoPlan)
		}
		var plan journalPlan
		if json.Unmarshal(line, &plan) == nil && plan.Schema == journalSchema {
			return plan, nil
		}
	}
}

// remember takes the fates of a line. It returns false for another plan: the fates behind that are not ours. Our own may be there twice, when a write
// failed that had got through.
func (p *Plan) remember(line []byte) bool {
	var f journalLine
	if json.Unmarshal(line, &f) != nil {
		return true
	}
	if f.Schema != "" {
		return f.ID == p.ID
	}
	has := func(i int) bool { return i >= 0 && i < len(p.items) }
	for _, i := range f.Done {
		if has(i) {
			p.settle(i, nil)
		}
	}
	for _, x := range f.Failed {
		if has(x.Item) {
			p.settle(x.Item, &pubsub.Error{Op: "replay", Topic: p.q.place.Topic, Code: pubsub.Code(x.Code), Err: errors.New(x.Error)})
		}
	}
	return true
}
