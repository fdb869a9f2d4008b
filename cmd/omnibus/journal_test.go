package main

import (
	"os"
	"strings"
	"testing"

	"github.com/omnibus-go/omnibus/internal/poll"
)

// Two replays that look for a name at once do not write into one journal.
func TestJournalIsOfOneReplay(t *testing.T) {
	t.Chdir(t.TempDir())
	now := newWorld(t).app.now()
	for _, path := range []string{"mine", ""} {
		one, err := newJournal(path, now)
		if err != nil {
			t.Fatal(err)
		}
		two, err := newJournal(path, now)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := one.Write([]byte("one\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := two.Write([]byte("two\n")); err == nil || exitCode(err) != exitUsage {
			t.Errorf("%q: the second writes, too: %v", path, err)
		}
		if err := two.close(true); err != nil {
			t.Error(err)
		}
		if err := one.close(false); err != nil {
			t.Error(err)
		}
		if text, err := os.ReadFile(one.path); err != nil || string(text) != "one\n" {
			t.Errorf("it has %q, %v", text, err)
		}
	}
}

// While a replay writes to its journal nobody goes on with it, or both would send the rest.
func TestResumeOfARunningReplay(t *testing.T) {
	w := given(t, 30)
	replay := w.start(nil, "dlq", "replay", "orders", "billing", "--yes", "--rate", "2", "--journal", "mine")
	poll.Until(w.t, "a pending one", func() bool { return len(w.letters("--state", "pending")) > 0 })
	if _, errs, code := w.run("dlq", "resume", "orders", "billing", "mine"); code != exitConflict || !strings.Contains(errs, "another process writes to the journal mine") {
		t.Errorf("it exits with %d: %s", code, errs)
	}
	replay.interrupt()
	replay.ends(exitInterrupted)
	w.must("dlq", "resume", "orders", "billing", "mine")
	if open := w.letters("--state", "open"); len(open) > 0 {
		t.Errorf("%d are open", len(open))
	}
	if info, err := os.Stat("mine"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the journal, which names messages, is %v, %v", info, err)
	}
}
