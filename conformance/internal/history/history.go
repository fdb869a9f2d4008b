// Package history judges what a test wrote down while something went wrong: whether anything confirmed was lost, whether keys stayed in
// order, and how often messages were handled again.
package history

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kind is what happened.
type Kind uint8

const (
	Published   Kind = iota + 1 // ID is about to be sent; has Key and Sum
	Accepted                    // the publish of ID returned nil
	Refused                     // it failed, and ID was certainly not stored
	Unconfirmed                 // it failed, and nobody knows
	GivenUp                     // ID need not be handled any more
	Started                     // Member of Group begins to handle ID, as Run; has Key and Sum
	Succeeded                   // Run ended well
	Failed                      // Run ended otherwise
	Cut                         // Member lost what it held: that may start anywhere now
	Restarted                   // Group begins anew with Key
)

// An Event is one line of a history.
type Event struct {
	Kind          Kind
	ID, Key       string
	Sum           uint64 // of the payload
	Group, Member string
	Run           int // names a handler's call
	At            time.Time
}

// A History is what happened, in the order in which it did.
type History []Event

// String is the history for people: a line an event.
func (h History) String() string {
	kinds := []string{"", "published", "accepted", "refused", "unconfirmed", "given up", "started", "succeeded", "failed", "cut", "restarted"}
	var b strings.Builder
	runs := map[int]Event{}
	for _, ev := range h {
		switch ev.Kind {
		case Started:
			runs[ev.Run] = ev
		case Succeeded, Failed:
			kind, at := ev.Kind, ev.At
			ev = runs[ev.Run]
			ev.Kind, ev.At = kind, at
		}
		fmt.Fprintf(&b, "%s %-11s %s %s %s %d\n", ev.At.Format("15:04:05.000000"), kinds[ev.Kind], ev.ID, ev.Key, ev.Member, ev.Run)
	}
	return b.String()
}

// A Promise is what a group was told.
type Promise struct {
	Group      string
	Ordered    bool // its keys are handled in the order in which they were published
	Begins     int  // it gets none of the first so many messages
	Duplicates int  // this many successes beyond the first of a message may be
}

// A Load is what may be in flight when a fault strikes.
type Load struct{ Members, MaxInFlight, Publishers, MaxPending int }

// Duplicates is the bound: what so many faults may bring again.
func (l Load) Duplicates(faults int) int {
	return faults * (l.Members*l.MaxInFlight + l.Publishers*l.MaxPending)
}

// A Verdict names what is wrong, as message ids, and counts.
type Verdict struct {
	Promise
	Confirmed, Received int
	Lost                []string // confirmed, and never handled
	Again               []string // successes beyond the first
	Breaches            []string // of order, as sentences
	Strangers           []string // nobody published them
	Early               []string // from before the group began
	Denied              []string // their publish said that they are not stored
	Changed             []string // with another key or payload
}

// Complaints says in sentences what breaks the promise. There are none if it is kept.
func (v Verdict) Complaints() (all []string) {
	say := func(ids []string, format string, args ...any) {
		if len(ids) > 0 {
			all = append(all, v.Group+" "+fmt.Sprintf(format, args...)+": "+Some(ids))
		}
	}
	say(v.Lost, "lost %d of %d confirmed messages", len(v.Lost), v.Confirmed)
	say(v.Strangers, "got %d messages that were not published", len(v.Strangers))
	say(v.Early, "got %d messages from before its start", len(v.Early))
	say(v.Denied, "got %d messages whose publish said that they were not stored", len(v.Denied))
	say(v.Changed, "got %d messages with another key or payload", len(v.Changed))
	if len(v.Again) > v.Duplicates {
		say(v.Again, "handled %d messages again, at most %d are allowed", len(v.Again), v.Duplicates)
	}
	say(v.Breaches, "broke the order %d times", len(v.Breaches))
	return all
}

// message is what the history says of one message.
type message struct {
	key  string
	seq  int // among those of its key
	at   int // among all
	sum  uint64
	fate Kind
	gone bool
	seen bool
	done int
}

// run is a handler's call.
type run struct {
	member string
	id     string
	seq    int
	open   bool
	ok     bool
}

// Check judges a history by what a group was promised.
func (h History) Check(p Promise) Verdict {
	v := Verdict{Promise: p}
	messages, keys, runs := map[string]*message{}, map[string]int{}, map[int]*run{}
	var order []*message
	var ids []string
	last := map[string]*run{} // by key
	for _, ev := range h {
		m := messages[ev.ID]
		switch ev.Kind {
		case Published:
			messages[ev.ID] = &message{key: ev.Key, seq: keys[ev.Key], at: len(order), sum: ev.Sum}
			keys[ev.Key]++
			order, ids = append(order, messages[ev.ID]), append(ids, ev.ID)
		case Accepted, Refused, Unconfirmed:
			m.fate = ev.Kind
		case GivenUp:
			m.gone = true
		case Started:
			if ev.Group != p.Group {
				continue
			}
			if m == nil {
				v.Strangers = append(v.Strangers, ev.ID)
				continue
			}
			if !m.seen && m.at < p.Begins {
				v.Early = append(v.Early, ev.ID)
			}
			m.seen = true
			if m.key != ev.Key || m.sum != ev.Sum {
				v.Changed = append(v.Changed, ev.ID)
			}
			r := &run{member: ev.Member, id: ev.ID, seq: m.seq, open: true}
			runs[ev.Run] = r
			if !p.Ordered || ev.Key == "" {
				continue
			}
			if prev := last[ev.Key]; prev != nil {
				if why := breach(prev, r, m.done, messages[prev.id].gone); why != "" {
					v.Breaches = append(v.Breaches, why)
				}
			}
			last[ev.Key] = r
		case Succeeded, Failed:
			r := runs[ev.Run]
			if r == nil {
				continue // of another group
			}
			r.open, r.ok = false, ev.Kind == Succeeded
			if r.ok {
				if messages[r.id].done++; messages[r.id].done > 1 {
					v.Again = append(v.Again, r.id)
				}
			}
		case Cut:
			for key, r := range last {
				if r.member == ev.Member && !r.ok {
					delete(last, key)
				}
			}
		case Restarted:
			if ev.Group == p.Group {
				delete(last, ev.Key)
			}
		}
	}
	for i, m := range order {
		if m.fate == Accepted {
			v.Confirmed++
			if i >= p.Begins && !m.gone && m.done == 0 {
				v.Lost = append(v.Lost, ids[i])
			}
		}
		if m.seen && m.fate == Refused {
			v.Denied = append(v.Denied, ids[i])
		}
		if m.done > 0 {
			v.Received++
		}
	}
	slices.Sort(v.Again)
	return v
}

// breach says what is wrong with a call that follows prev in its key; "" is nothing.
func breach(prev, now *run, done int, givenUp bool) string {
	switch {
	case prev.open:
		return fmt.Sprintf("%s starts while %s of the same key runs", now.id, prev.id)
	case now.seq > prev.seq && !prev.ok && !givenUp:
		return fmt.Sprintf("%s starts before %s of the same key is done", now.id, prev.id)
	case now.seq < prev.seq && done == 0:
		return fmt.Sprintf("%s comes for the first time after %s of the same key", now.id, prev.id)
	}
	return ""
}

// Some shows the first few of a list.
func Some(list []string) string {
	const few = 5
	if len(list) <= few {
		return fmt.Sprint(list)
	}
	return fmt.Sprintf("%v and %d more", list[:few], len(list)-few)
}
