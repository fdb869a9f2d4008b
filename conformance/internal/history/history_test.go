package history_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/omnibus-go/omnibus/conformance/internal/history"
)

// A writer writes histories by hand. Messages are named by their key and a number: "k1" is the first of key "k".
type writer struct {
	history.History
	runs int
}

func (w *writer) add(ev history.Event) { w.History = append(w.History, ev) }

func (w *writer) publish(ids ...string) {
	for _, id := range ids {
		w.add(history.Event{Kind: history.Published, ID: id, Key: id[:1], Sum: 7})
		w.add(history.Event{Kind: history.Accepted, ID: id})
	}
}

func (w *writer) start(member, id string) int {
	w.runs++
	w.add(history.Event{Kind: history.Started, ID: id, Key: id[:1], Sum: 7, Group: "g", Member: member, Run: w.runs})
	return w.runs
}

func (w *writer) end(run int, how history.Kind) { w.add(history.Event{Kind: how, Run: run}) }

func (w *writer) handle(member string, ids ...string) {
	for _, id := range ids {
		w.end(w.start(member, id), history.Succeeded)
	}
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		write func(w *writer)
		want  history.Verdict
	}{
		"all is well": {
			func(w *writer) {
				w.publish("a1", "b1", "a2", "b2")
				a1 := w.start("m", "a1")
				w.handle("m", "b1", "b2")
				w.end(a1, history.Succeeded)
				w.handle("m", "a2")
			},
			history.Verdict{Confirmed: 4, Received: 4},
		},
		"a confirmed message never comes": {
			func(w *writer) { w.publish("a1", "b1", "a2"); w.handle("m", "a1", "b1") },
			history.Verdict{Confirmed: 3, Received: 2, Lost: []string{"a2"}},
		},
		"a confirmed message comes, and is never done": {
			func(w *writer) { w.publish("a1"); w.end(w.start("m", "a1"), history.Failed) },
			history.Verdict{Confirmed: 1, Lost: []string{"a1"}},
		},
		"what is given up need not be done": {
			func(w *writer) {
				w.publish("a1", "a2")
				w.end(w.start("m", "a1"), history.Failed)
				w.add(history.Event{Kind: history.GivenUp, ID: "a1"})
				w.handle("m", "a2")
			},
			history.Verdict{Confirmed: 2, Received: 1},
		},
		"what is not confirmed may come, or not": {
			func(w *writer) {
				for _, id := range []string{"a1", "b1"} {
					w.add(history.Event{Kind: history.Published, ID: id, Key: id[:1], Sum: 7})
					w.add(history.Event{Kind: history.Unconfirmed, ID: id})
				}
				w.handle("m", "b1")
			},
			history.Verdict{Received: 1},
		},
		"what was refused comes all the same": {
			func(w *writer) {
				w.add(history.Event{Kind: history.Published, ID: "a1", Key: "a", Sum: 7})
				w.add(history.Event{Kind: history.Refused, ID: "a1"})
				w.handle("m", "a1")
			},
			history.Verdict{Received: 1, Denied: []string{"a1"}},
		},
		"a message is overtaken": {
			func(w *writer) { w.publish("a1", "a2", "a3"); w.handle("m", "a1", "a3", "a2") },
			history.Verdict{Confirmed: 3, Received: 3, Breaches: []string{"a2 comes for the first time after a3 of the same key"}},
		},
		"the next one starts while one runs": {
			func(w *writer) {
				w.publish("a1", "a2")
				a1 := w.start("m", "a1")
				w.handle("n", "a2")
				w.end(a1, history.Succeeded)
			},
			history.Verdict{Confirmed: 2, Received: 2, Breaches: []string{"a2 starts while a1 of the same key runs"}},
		},
		"the next one starts while one waits for its retry": {
			func(w *writer) {
				w.publish("a1", "a2")
				w.end(w.start("m", "a1"), history.Failed)
				w.handle("m", "a2", "a1")
			},
			history.Verdict{Confirmed: 2, Received: 2, Breaches: []string{
				"a2 starts before a1 of the same key is done", "a1 comes for the first time after a2 of the same key",
			}},
		},
		"a member dies, and another repeats in order": {
			func(w *writer) {
				w.publish("a1", "a2", "a3")
				w.handle("m", "a1")
				w.start("m", "a2")
				w.add(history.Event{Kind: history.Cut, Member: "m"})
				w.handle("n", "a1", "a2", "a3")
			},
			history.Verdict{Promise: history.Promise{Duplicates: 1}, Confirmed: 3, Received: 3, Again: []string{"a1"}},
		},
		"more comes again than may": {
			func(w *writer) { w.publish("a1", "a2"); w.handle("m", "a1", "a2", "a1", "a2", "a2") },
			history.Verdict{Promise: history.Promise{Duplicates: 2}, Confirmed: 2, Received: 2, Again: []string{"a1", "a2", "a2"}},
		},
		"a key begins anew": {
			func(w *writer) {
				w.publish("a1", "a2")
				w.start("m", "a2")
				w.add(history.Event{Kind: history.Restarted, Group: "g", Key: "a"})
				w.handle("m", "a1", "a2")
			},
			history.Verdict{Confirmed: 2, Received: 2},
		},
		"somebody else's, an early and a changed one": {
			func(w *writer) {
				w.publish("a1", "b1")
				w.handle("m", "x9", "a1", "b1")
				w.History[len(w.History)-2].Sum = 8
			},
			history.Verdict{
				Promise: history.Promise{Begins: 1}, Confirmed: 2, Received: 2,
				Strangers: []string{"x9"}, Early: []string{"a1"}, Changed: []string{"b1"},
			},
		},
		"another group's are not counted": {
			func(w *writer) {
				w.publish("a1")
				w.add(history.Event{Kind: history.Started, ID: "a1", Key: "a", Sum: 7, Group: "h", Run: 1})
				w.end(1, history.Succeeded)
			},
			history.Verdict{Confirmed: 1, Lost: []string{"a1"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var w writer
			c.write(&w)
			want := c.want
			want.Group, want.Ordered = "g", true
			got := w.Check(want.Promise)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			bad := len(want.Lost)+len(want.Breaches)+len(want.Strangers)+len(want.Early)+len(want.Denied)+len(want.Changed) > 0 ||
				len(want.Again) > want.Duplicates
			complaints := got.Complaints()
			if bad != (len(complaints) > 0) {
				t.Errorf("complaints: %q", complaints)
			}
			for _, ids := range [][]string{want.Lost, want.Breaches, want.Strangers, want.Early, want.Denied, want.Changed} {
				if len(ids) > 0 && !slices.ContainsFunc(complaints, func(s string) bool { return strings.Contains(s, ids[0]) }) {
					t.Errorf("%q names nothing of %v", complaints, ids)
				}
			}
		})
	}
}

// Order that was not promised is not judged.
func TestUnordered(t *testing.T) {
	var w writer
	w.publish("a1", "a2")
	w.handle("m", "a2", "a1")
	if got := w.Check(history.Promise{Group: "g"}).Complaints(); len(got) > 0 {
		t.Errorf("complaints: %q", got)
	}
}

func TestBound(t *testing.T) {
	l := history.Load{Members: 3, MaxInFlight: 10, Publishers: 2, MaxPending: 100}
	if got := l.Duplicates(4); got != 4*(3*10+2*100) {
		t.Errorf("4 faults may bring %d messages again", got)
	}
}

func TestSome(t *testing.T) {
	var ids []string
	for i := range 7 {
		ids = append(ids, fmt.Sprint(i))
	}
	if got := history.Some(ids); got != "[0 1 2 3 4] and 2 more" {
		t.Error(got)
	}
}

func TestString(t *testing.T) {
	w := &writer{}
	w.publish("a1")
	w.handle("m", "a1")
	w.add(history.Event{Kind: history.Cut, Member: "m"})
	var got []string
	for line := range strings.Lines(w.String()) {
		got = append(got, strings.Join(strings.Fields(line)[1:], " ")) // without the time
	}
	want := []string{"published a1 a 0", "accepted a1 0", "started a1 a m 1", "succeeded a1 a m 1", "cut m 0"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
