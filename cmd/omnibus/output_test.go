package main

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/omnibus-go/omnibus/internal/deadevent"
	"github.com/omnibus-go/omnibus/pubsub"
)

// obeyed are texts that a terminal does not show but obeys: it clears, moves, or turns the direction.
const obeyed = "\x1b[2J\u009b2J\u202ea\u0085\x7f\u200d\U000e0041"

// dangerous is the first character of a text that a terminal obeys, 0 if there is none.
func dangerous(s string) rune {
	for _, r := range s {
		if r != '\n' && unicode.In(r, unicode.Cc, unicode.Cf) {
			return r
		}
	}
	return 0
}

// Nothing that a stranger has published can do anything to the terminal of who looks at it, in any form; and JSON has it all the same.
func TestTerminalsObeyNoMessage(t *testing.T) {
	w := newWorld(t)
	t.Chdir(t.TempDir())
	w.must("ensure", "orders", "--group", "billing")
	line, err := json.Marshal(message{ID: text(obeyed), Key: text(obeyed), Type: text(obeyed), ContentType: text(obeyed), Payload: of(obeyed), Headers: []header{{text(obeyed), text(obeyed), ""}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, errs, code := w.runWith(string(line)+"\n", "pub", "orders", "--jsonl"); code != 0 {
		t.Fatal(errs)
	}
	w.consume("orders", "billing", true)
	b, err := w.app.mux.Open(t.Context(), "mem://test", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, e := range []deadevent.Event{
		{Operation: "replay-started", Plan: obeyed, By: obeyed, Why: obeyed, Text: obeyed, Total: 1},
		{Operation: obeyed, IDs: []string{obeyed}, Status: obeyed, Group: obeyed},
	} {
		payload, key, err := deadevent.Encode(&e)
		if err != nil {
			t.Fatal(err)
		}
		told := make(chan error, 1)
		b.Resend(t.Context(), pubsub.Place{Topic: "orders", Group: "billing", Kind: pubsub.PlaceState},
			pubsub.Message{ID: key, Type: deadevent.Type, Payload: payload}, pubsub.Dedup{}, func(_ pubsub.Receipt, err error) { told <- err })
		if err := <-told; err != nil {
			t.Fatal(err)
		}
	}
	id := string(w.letters()[0].ID)
	for _, args := range [][]string{
		{"sub", "orders", "--from", "earliest"}, {"dlq", "list", "orders", "billing"}, {"dlq", "show", "orders", "billing", id}, {"dlq", "groups", "orders", "billing"},
		{"dlq", "audit", "orders", "billing"}, {"dlq", "replays", "orders", "billing"}, {"dlq", "replay", "orders", "billing", "--plan"}, {"dlq", "export", "orders", "billing"},
	} {
		for _, form := range []string{"--json=false", "--json"} {
			out := w.must(append(args, form)...)
			if r := dangerous(out); r != 0 || out == "" || !utf8.ValidString(out) {
				t.Errorf("%v %s writes %U: %q", args, form, r, out)
			}
		}
	}
	var m message
	if err := json.Unmarshal([]byte(w.must("sub", "orders", "--from", "earliest", "--json")), &m); err != nil || string(*m.Payload) != obeyed || string(m.ID) != obeyed {
		t.Errorf("JSON says %+v, %v", m, err)
	}
}

// Who asks for JSON gets it, also for a command line that cannot be read up to there.
func TestErrorsOfTheCommandLineAreJSON(t *testing.T) {
	for line, asked := range map[string]bool{
		"ping --bogus --json": true, "ping --json --bogus": true, "pub orders --priority x --json": true, "ping --timeout=never --json=true": true,
		"nothing --json": true, "dlq list --json": true, "ping --bogus": false, "pub orders --priority x -- --json": false,
	} {
		out, errs, code := newWorld(t).run(strings.Fields(line)...)
		var said struct{ Error complaint }
		if err := json.Unmarshal([]byte(errs), &said); (err == nil) != asked || code != exitUsage || out != "" || asked && said.Error.Exit != exitUsage {
			t.Errorf("%s exits with %d: %s%s", line, code, out, errs)
		}
	}
}

// A reader that is gone, or a full disk, is not the broker's fault.
func TestOutputThatFailsIsNotTheBrokers(t *testing.T) {
	w := given(t, 3)
	for line, lines := range map[string]int{"dlq export orders billing": 1, "dlq list orders billing --json": 1, "conform mem:// --only ^Fidelity/NilAndEmpty$": 0} {
		other := w.beside()
		other.app.out.w = &full{left: lines}
		if _, errs, code := other.run(strings.Fields(line)...); code != exitFailed || !strings.Contains(errs, "no space left") || strings.Contains(errs, "broker") {
			t.Errorf("%s exits with %d: %s", line, code, errs)
		}
	}
}

// A line has one message: a second one is not passed over.
func TestNothingOfALineIsPassedOver(t *testing.T) {
	w := newWorld(t)
	t.Chdir(t.TempDir())
	keyrings(t)
	w.must("ensure", "orders")
	two := `{"payload":"a","topic":"orders"} {"payload":"b","topic":"orders"}` + "\n"
	for _, args := range [][]string{{"pub", "orders", "--jsonl"}, {"keys", "verify", "orders.keys"}} {
		if out, errs, code := w.runWith(two, args...); code != exitUsage || !strings.Contains(errs, "line 1") {
			t.Errorf("%v exits with %d: %s%s", args, code, out, errs)
		}
	}
	if got := w.must("sub", "orders", "--from", "earliest", "--json"); got != "" {
		t.Errorf("stored is %s", got)
	}
}
