package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/internal/poll"
)

// given makes n dead letters of the group billing of orders.
func given(t *testing.T, n int) *world {
	t.Helper()
	w := newWorld(t)
	t.Chdir(t.TempDir())
	w.must("ensure", "orders", "--group", "billing")
	if _, errs, code := w.runWith(lines(numbers(0, n)), "pub", "orders", "--lines", "--key", "a"); code != 0 {
		t.Fatal(errs)
	}
	w.consume("orders", "billing", true)
	return w
}

// letters are the dead letters as JSON says them.
func (w *world) letters(args ...string) (all []letter) {
	w.t.Helper()
	for line := range strings.Lines(w.must(append([]string{"dlq", "list", "orders", "billing", "--json"}, args...)...)) {
		var l letter
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			w.t.Fatal(err)
		}
		all = append(all, l)
	}
	return all
}

// A replay that is interrupted says how to go on, and both together send each message once, in order.
func TestInterruptedReplayGoesOn(t *testing.T) {
	const n = 60
	w := given(t, n)
	replay := w.start(nil, "dlq", "replay", "orders", "billing", "--yes", "--rate", "200", "--json")
	poll.Until(w.t, "a pending one", func() bool { return len(w.letters("--state", "pending")) > 0 })
	replay.interrupt()
	replay.ends(exitInterrupted)
	var rep replayed
	if err := json.Unmarshal([]byte(replay.out.String()), &rep); err != nil {
		t.Fatal(err)
	}
	if rep.Replayed == 0 || rep.Replayed == n || rep.Total != n || rep.Journal == "" {
		t.Fatalf("interrupted is %+v", rep)
	}
	out := w.must("dlq", "resume", "orders", "billing", rep.Journal)
	if !strings.HasPrefix(out, fmt.Sprintf("%d of %d replayed, 0 failed", n, n)) {
		t.Errorf("it goes on with %s", out)
	}
	if _, err := os.Stat(rep.Journal); err != nil {
		t.Error("resume says that the journal stays: ", err)
	}
	got := payloads(t, w.must("sub", "orders", "--group", "billing", "--count", fmt.Sprint(n), "--json"))
	if !slices.Equal(got, numbers(0, n)) {
		t.Errorf("the group gets %q", got)
	}
	if open := w.letters("--state", "open,pending"); len(open) > 0 {
		t.Errorf("%d of them are not resolved", len(open))
	}
}

// A complete replay leaves no journal behind, and one that is named is kept and not written over.
func TestJournal(t *testing.T) {
	w := given(t, 3)
	w.must("dlq", "replay", "orders", "billing", "--yes")
	if left, _ := filepath.Glob("*"); len(left) > 0 {
		t.Errorf("left is %q", left)
	}
	w.consume("orders", "billing", true)
	w.must("dlq", "replay", "orders", "billing", "--yes", "--journal", "mine")
	if _, err := os.Stat("mine"); err != nil {
		t.Error(err)
	}
	if _, errs, code := w.run("dlq", "replay", "orders", "billing", "--yes", "--journal", "mine"); code != exitUsage || !strings.Contains(errs, "there already") {
		t.Errorf("a second one into the same journal exits with %d: %s", code, errs)
	}
	w.consume("orders", "billing", true)
	w.must("dlq", "replay", "orders", "billing", "--dry-run", "--journal", "dry")
	if _, err := os.Stat("dry"); err == nil {
		t.Error("a dry run writes a journal")
	}
	if pending := w.letters("--state", "pending"); len(pending) > 0 {
		t.Errorf("a dry run has replayed %d", len(pending))
	}
}

// On a terminal a replay asks, and shows how far it is.
func TestReplayOnATerminal(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, "n\n": false, "\n": false, "": false} {
		w := given(t, 5)
		w.app.out.progressing = true
		out, errs, code := w.runWith(answer, "dlq", "replay", "orders", "billing", "--rate", "20")
		if code != 0 || strings.Contains(out, "5 of 5 replayed") != want || strings.Contains(out, "nothing was sent") == want {
			t.Errorf("%q: exit %d, %s%s", answer, code, out, errs)
		}
		if !strings.Contains(errs, "send 5 messages? [y/N]") || strings.Contains(errs, "[==============================] 100 %  5 of 5") != want {
			t.Errorf("%q: it shows %q", answer, errs)
		}
		if want && !strings.Contains(errs, " left") {
			t.Errorf("it does not say how long it takes: %q", errs)
		}
		if pending := len(w.letters("--state", "pending")); (pending == 5) != want || (pending == 0) == want {
			t.Errorf("%q: %d are pending", answer, pending)
		}
	}
}

// A canary whose messages fail again stops the rest.
func TestCanaryStops(t *testing.T) {
	w := given(t, 20)
	done := make(chan struct{})
	go func() { // the group is still broken
		defer close(done)
		poll.Holds(poll.Patience, func() bool {
			w.beside().consume("orders", "billing", true)
			return len(w.beside().letters("--state", "failed-again")) >= 2
		})
	}()
	other := w.beside()
	_, errs, code := other.run("dlq", "replay", "orders", "billing", "--yes", "--canary", "2", "--within", "20s")
	<-done
	if code != exitFound || !strings.Contains(errs, "failed again") {
		t.Errorf("it exits with %d: %s", code, errs)
	}
	if open := w.letters("--state", "open"); len(open) != 20 { // 18, and the two that are here again
		t.Errorf("%d are open", len(open))
	}
}

// A running replay can be asked to wait, and to end, by another process.
func TestControl(t *testing.T) {
	w := given(t, 50)
	replay := w.start(nil, "dlq", "replay", "orders", "billing", "--yes", "--rate", "2", "--json")
	plan := ""
	poll.Until(w.t, "a running replay", func() bool {
		var r running
		out := w.must("dlq", "replays", "orders", "billing", "--json")
		plan = ""
		if json.Unmarshal([]byte(out), &r) == nil {
			plan = r.Plan
		}
		return plan != ""
	})
	w.must("dlq", "pause", "orders", "billing", plan)
	if out := w.must("dlq", "replays", "orders", "billing"); !strings.Contains(out, "to pause") {
		t.Errorf("it was asked to pause: %s", out)
	}
	w.must("dlq", "continue", "orders", "billing", plan)
	w.must("dlq", "cancel", "orders", "billing", plan, "--why", "lunch")
	replay.ends(exitInterrupted)
	if !strings.Contains(replay.errs.String(), "lunch") {
		t.Errorf("it does not say why: %s", replay.errs.String())
	}
}

func TestWatchLetters(t *testing.T) {
	w := given(t, 2)
	all := w.start(nil, "dlq", "watch", "orders", "billing", "--all", "--every", "5ms", "--json")
	later := w.start(nil, "dlq", "watch", "orders", "billing", "--every", "5ms")
	poll.Until(w.t, "the two", func() bool { return strings.Count(all.out.String(), "\n") == 2 })
	poll.Until(w.t, "a new one", func() bool {
		w.must("pub", "orders", "new")
		w.consume("orders", "billing", true)
		return later.out.String() != ""
	})
	for _, j := range []*job{all, later} {
		j.interrupt()
		j.ends(exitOK)
	}
	if strings.Contains(later.out.String(), "declined: 0") || !strings.Contains(later.out.String(), "declined: new") {
		t.Errorf("it tells of %s", later.out.String())
	}
}

// What show says is what list says of one, and for people it has all of it.
func TestShow(t *testing.T) {
	w := given(t, 2)
	l := w.letters()[1]
	var one letter
	if err := json.Unmarshal([]byte(w.must("dlq", "show", "orders", "billing", string(l.ID), "--json")), &one); err != nil || one.ID != l.ID || one.State != dlq.StateOpen {
		t.Errorf("%v: %+v", err, one)
	}
	out := w.must("dlq", "show", "orders", "billing", string(l.ID))
	for _, want := range []string{string(l.ID), "max-attempts", "card declined: 1", "*main.declinedError", "attempt 2", "orders billing at 1.0.1.0", "key=a", "\n  1\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q: %s", want, out)
		}
	}
}
