package pubsubtest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/omnibus-go/omnibus/pubsub"
)

// WantMessages fails the test, which goes on, unless got is as expected: the same number of messages in the same order. Of each expected
// one the fields count that are not zero; a Payload that is a JSON object or array is compared as JSON, any other byte by byte. Of its Headers
// each name must have those values, in that order; other names do not count. The failure shows what is missing, what is
// too much and what differs.
func WantMessages(tb testing.TB, got []pubsub.Message, want ...pubsub.Message) {
	tb.Helper()
	steps := align(got, want)
	if !slices.ContainsFunc(steps, func(s step) bool { return s.text != nil }) {
		return
	}
	lines := []string{fmt.Sprintf("messages are not as expected (- expected, + got): got %d, expected %d", len(got), len(want))}
	for _, s := range steps {
		lines = append(lines, "  "+s.title)
		lines = append(lines, indent(s.text, "    ")...)
	}
	tb.Error(strings.Join(lines, "\n"))
}

// A step is one line of the comparison; text is nil where all is well.
type step struct {
	title string
	text  []string
}

// align finds which of the messages correspond, so that one that is missing does not make all that follow it differ.
func align(got, want []pubsub.Message) (steps []step) {
	equal := func(i, j int) bool { return diffMessage(got[i], want[j]) == nil }
	var extra, missing []int
	alike, last := 0, 0 // how many are as expected in a row, and the last of them, counted from 1
	agree := func() {
		if alike == 0 {
			return
		}
		title := "message " + count(last, len(want)) + " is as expected"
		if alike > 1 {
			title = fmt.Sprintf("messages %d to %s are as expected", last-alike+1, count(last, len(want)))
		}
		steps, alike = append(steps, step{title: title}), 0
	}
	flush := func() {
		n := min(len(extra), len(missing))
		for k := range n {
			i, j := extra[k], missing[k]
			title := "message " + count(j+1, len(want)) + " differs"
			if i != j {
				title += fmt.Sprintf(", which came as number %d", i+1)
			}
			steps = append(steps, step{title + ":", diffMessage(got[i], want[j])})
		}
		for _, j := range missing[n:] {
			steps = append(steps, step{"message " + count(j+1, len(want)) + " is missing:", indent(describe(want[j]), "- ")})
		}
		for _, i := range extra[n:] {
			steps = append(steps, step{fmt.Sprintf("unexpected, as number %d:", i+1), indent(describe(got[i]), "+ ")})
		}
		extra, missing = nil, nil
	}
	for _, p := range longestCommon(len(got), len(want), equal) {
		switch {
		case p[0] < 0:
			agree()
			missing = append(missing, p[1])
		case p[1] < 0:
			agree()
			extra = append(extra, p[0])
		default:
			flush()
			alike++
			last = p[1] + 1
		}
	}
	agree()
	flush()
	return steps
}

// diffMessage returns how got differs from want; nil = not at all.
func diffMessage(got, want pubsub.Message) (lines []string) {
	differs := false
	row := func(label string, equal bool, got, want string) {
		if equal {
			lines = append(lines, fmt.Sprintf("  %s: %s", label, got))
			return
		}
		differs = true
		lines = append(lines, fmt.Sprintf("- %s: %s", label, want), fmt.Sprintf("+ %s: %s", label, got))
	}
	text := func(label, got, want string) {
		if want != "" {
			row(label, got == want, quoted(got), quoted(want))
		}
	}
	text("id", got.ID, want.ID)
	text("type", got.Type, want.Type)
	text("key", got.Key, want.Key)
	text("content type", got.ContentType, want.ContentType)
	if !want.Time.IsZero() {
		row("time", got.Time.Equal(want.Time), got.Time.String(), want.Time.String())
	}
	if want.Delay != 0 {
		row("delay", got.Delay == want.Delay, got.Delay.String(), want.Delay.String())
	}
	if want.TTL != 0 {
		row("ttl", got.TTL == want.TTL, got.TTL.String(), want.TTL.String())
	}
	if want.Priority != 0 {
		row("priority", got.Priority == want.Priority, strconv.Itoa(int(got.Priority)), strconv.Itoa(int(want.Priority)))
	}
	var names []string
	for _, h := range want.Headers {
		if !slices.Contains(names, h.Name) {
			names = append(names, h.Name)
			g, w := values(got.Headers, h.Name), values(want.Headers, h.Name)
			row("header "+h.Name, slices.Equal(g, w), joined(g), joined(w))
		}
	}
	if want.Payload != nil {
		g, w := payload(got.Payload), payload(want.Payload)
		if samePayload(got.Payload, want.Payload) {
			if len(g) == 1 {
				lines = append(lines, "  payload: "+g[0])
			} else {
				lines = append(lines, "  payload: the same")
			}
		} else {
			differs = true
			lines = append(lines, "  payload:")
			lines = append(lines, indent(diffLines(g, w), "  ")...)
		}
	}
	if !differs {
		return nil
	}
	return lines
}

// describe shows what a message has.
func describe(m pubsub.Message) (lines []string) {
	add := func(label, value string) { lines = append(lines, label+": "+value) }
	for _, f := range []struct{ label, value string }{
		{"id", m.ID}, {"type", m.Type}, {"key", m.Key}, {"content type", m.ContentType},
	} {
		if f.value != "" {
			add(f.label, quoted(f.value))
		}
	}
	for i, h := range m.Headers {
		if slices.IndexFunc(m.Headers, func(o pubsub.Header) bool { return o.Name == h.Name }) == i {
			add("header "+h.Name, joined(values(m.Headers, h.Name)))
		}
	}
	switch p := payload(m.Payload); {
	case m.Payload == nil && len(lines) == 0:
		lines = append(lines, "a message with nothing in it")
	case m.Payload == nil:
	case len(p) == 1:
		add("payload", p[0])
	default:
		lines = append(append(lines, "payload:"), indent(shortened(p), "  ")...)
	}
	return lines
}

// values are those of one name, each with its kind, unless that is text.
func values(h pubsub.Headers, name string) (all []string) {
	for _, x := range h {
		if x.Name != name {
			continue
		}
		v := quoted(x.Value)
		if x.Kind != pubsub.HeaderText {
			v += " (" + kindText(x.Kind) + ")"
		}
		all = append(all, v)
	}
	return all
}

func kindText(k pubsub.HeaderKind) string {
	names := [...]string{"text", "null", "int", "float", "bool", "time", "native"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("kind %d", k)
}

func joined(values []string) string {
	if len(values) == 0 {
		return "none"
	}
	return strings.Join(values, ", ")
}

// quoted makes what cannot be seen visible, and leaves everything else as it is.
func quoted(s string) string {
	if q := fmt.Sprintf("%q", s); s == "" || q != `"`+s+`"` || strings.TrimSpace(s) != s {
		return q
	}
	return s
}
