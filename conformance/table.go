package conformance

import (
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Table writes the report for people: a line a group, what did not simply pass with its reason, and the failures last, each with what it
// means and how to find its cause. It is in colour where w is a terminal, unless NO_COLOR is set.
func (r *Report) Table(w io.Writer) {
	t := &table{w: w, colour: colourful(w)}
	race := ""
	if r.Race {
		race = ", race detector on"
	}
	server := ""
	if r.ServerVersion != "" {
		server = " " + r.ServerVersion
	}
	t.linef(bold, "%s%s (%s), %s%s, seed %d", r.Broker, server, r.Variant, r.Go, race, r.Seed)
	r.groups(t)
	r.others(t)
	r.failed(t)
}

// figures are the sums over a group of properties.
type figures struct {
	PropertyResult
	status map[Status]int
}

func (f *figures) add(p PropertyResult) {
	if f.status == nil {
		f.status = map[Status]int{}
	}
	f.status[p.Status]++
	f.Seconds += p.Seconds
	f.Confirmed += p.Confirmed
	f.Received += p.Received
	f.Lost += p.Lost
	f.Duplicates += p.Duplicates
	f.DuplicateBound += p.DuplicateBound
	f.OrderViolations += p.OrderViolations
}

// groups writes a line a group, and the totals.
func (r *Report) groups(t *table) {
	var names []string
	sums := map[string]*figures{}
	total := &figures{}
	for _, p := range r.Properties {
		group, _, _ := strings.Cut(p.Name, "/")
		if sums[group] == nil {
			sums[group] = &figures{}
			names = append(names, group)
		}
		sums[group].add(p)
		total.add(p)
	}
	statuses := []Status{Passed, Failed}
	for _, s := range []Status{KnownFailing, Gated, NotRun} {
		if total.status[s] > 0 {
			statuses = append(statuses, s)
		}
	}
	head := []cell{{text: "group"}}
	for _, s := range statuses {
		head = append(head, cell{text: string(s)})
	}
	for _, h := range []string{"seconds", "confirmed", "received", "lost", "dup/bound", "disorder"} {
		head = append(head, cell{text: h})
	}
	for i := range head {
		head[i].style = dim
	}
	rows := [][]cell{head}
	for _, name := range names {
		rows = append(rows, sums[name].row(name, statuses))
	}
	total.Seconds = r.Seconds // properties run side by side
	rows = append(rows, total.row("all", statuses))
	t.rows(rows)
}

func (f *figures) row(name string, statuses []Status) []cell {
	row := []cell{{text: name}}
	for _, s := range statuses {
		c := cell{text: strconv.Itoa(f.status[s]), style: s.style()}
		if f.status[s] == 0 {
			c = cell{text: ".", style: dim}
		}
		row = append(row, c)
	}
	alarm := func(n int, bad bool, text string) cell {
		if bad {
			return cell{text: text, style: red}
		}
		if n == 0 {
			return cell{text: text, style: dim}
		}
		return cell{text: text}
	}
	return append(row,
		cell{text: fmt.Sprintf("%.1f", f.Seconds)}, cell{text: strconv.Itoa(f.Confirmed)}, cell{text: strconv.Itoa(f.Received)},
		alarm(f.Lost, f.Lost > 0, strconv.Itoa(f.Lost)),
		alarm(f.Duplicates+f.DuplicateBound, f.Duplicates > f.DuplicateBound, fmt.Sprintf("%d/%d", f.Duplicates, f.DuplicateBound)),
		alarm(f.OrderViolations, f.OrderViolations > 0, strconv.Itoa(f.OrderViolations)))
}

// others writes what is neither failed nor simply passed, the properties with the same reason together.
func (r *Report) others(t *table) {
	type entry struct {
		status Status
		reason string
		names  []string
	}
	var entries []*entry
	var slow []PropertyResult
	for _, p := range r.Properties {
		if p.Seconds >= 5 {
			slow = append(slow, p)
		}
		if p.fails() || p.Status == Passed && p.Reason == "" {
			continue
		}
		i := slices.IndexFunc(entries, func(e *entry) bool { return e.status == p.Status && e.reason == p.Reason })
		if i < 0 {
			i = len(entries)
			entries = append(entries, &entry{status: p.Status, reason: p.Reason})
		}
		entries[i].names = append(entries[i].names, p.Name)
	}
	rank := []Status{KnownFailing, NotRun, Gated, Passed}
	slices.SortStableFunc(entries, func(a, b *entry) int { return slices.Index(rank, a.status) - slices.Index(rank, b.status) })
	for i, e := range entries {
		if i == 0 {
			t.linef(plain, "")
		}
		t.wrapped(cell{text: string(e.status), style: e.status.style()}, strings.Join(e.names, " "))
		t.wrapped(cell{}, e.reason)
	}
	slices.SortFunc(slow, func(a, b PropertyResult) int { return cmp.Compare(b.Seconds, a.Seconds) })
	if len(slow) > 0 {
		var texts []string
		for _, p := range slow[:min(len(slow), 5)] {
			texts = append(texts, fmt.Sprintf("%s %.1f s", p.Name, p.Seconds))
		}
		t.linef(plain, "")
		t.wrapped(cell{text: "slowest", style: dim}, strings.Join(texts, ", "))
	}
	t.linef(plain, "")
	tone := green
	if !r.OK() {
		tone = red
	}
	t.linef(tone, "%d passed, %d failed, %d known to fail, %d gated, %d not run, in %.1f s",
		r.Totals[Passed], r.Totals[Failed], r.Totals[KnownFailing], r.Totals[Gated], r.Totals[NotRun], r.Seconds)
	if r.deselected > 0 {
		t.linef(plain, "%d properties were not selected", r.deselected)
	}
}

// failed writes what fails the run: what it means, what was seen, and how to find the cause.
func (r *Report) failed(t *table) {
	for _, p := range r.Properties {
		if !p.fails() {
			continue
		}
		t.linef(plain, "")
		t.linef(red, "%s %s", strings.ToUpper(string(Failed)), p.Name)
		if about, ok := property(p.Name); ok {
			t.wrapped(cell{text: "promised", style: dim}, about.Doc)
			for _, n := range about.Promises {
				promise := Promises()[n-1]
				t.wrapped(cell{text: fmt.Sprintf("promise %d", n), style: dim}, promise.Title+". Broken: "+promise.Breach)
			}
		}
		for i, f := range p.failures {
			const most = 5 // the rest is in the test's own output
			if i == most {
				t.wrapped(cell{}, fmt.Sprintf("and %d more", len(p.failures)-most))
				break
			}
			t.wrapped(cell{text: "seen", style: dim}, firstLine(f))
		}
		if len(p.failures) == 0 {
			t.wrapped(cell{text: "seen", style: dim}, p.headline())
		}
		if p.Status == Failed && !p.Verdict() {
			t.wrapped(cell{}, "The suite could not ask its question: look at the harness and the connection first.")
		}
		t.labelled(cell{text: "find it", style: dim}, r.rerun(p.Name))
		for _, m := range Mutants() {
			if m.Breaks == p.Name {
				t.wrapped(cell{text: "cf. mutant", style: dim}, "an adapter fails so when it "+m.Name)
			}
		}
	}
}

// headline is the failure in one line.
func (p PropertyResult) headline() string {
	if p.Status == NotRun && p.Reason == "" {
		return "not run, and nobody says why"
	}
	return firstLine(p.Reason)
}

// rerun says how to see a failure again.
func (r *Report) rerun(property string) string {
	if r.test == "" {
		return fmt.Sprintf("run the same command with SEED=%d in its environment", r.Seed)
	}
	race := ""
	if r.Race {
		race = " -race"
	}
	return fmt.Sprintf("SEED=%d go test%s -run '^%s$'", r.Seed, race, strings.ReplaceAll(r.test+"/"+property, "/", "$/^"))
}

func property(name string) (Property, bool) {
	all := Properties()
	i := slices.IndexFunc(all, func(p Property) bool { return p.Name == name })
	if i < 0 {
		return Property{}, false
	}
	return all[i], true
}

// A style is a terminal's code for a colour.
type style string

const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
)

func (s Status) style() style {
	switch s {
	case Passed:
		return green
	case Failed, NotRun:
		return red
	case KnownFailing:
		return yellow
	}
	return plain
}

// colourful says whether w is a terminal whose user has nothing against colours.
func colourful(w io.Writer) bool {
	f, ok := w.(interface{ Stat() (fs.FileInfo, error) }) // an *os.File
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&fs.ModeCharDevice != 0
}

type cell struct {
	text  string
	style style
}

// A table writes lines and columns, in colour or not.
type table struct {
	w      io.Writer
	colour bool
}

func (t *table) paint(s style, text string) string {
	if !t.colour || s == plain || strings.TrimSpace(text) == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

func (t *table) linef(s style, format string, args ...any) {
	fmt.Fprintln(t.w, t.paint(s, fmt.Sprintf(format, args...)))
}

// rows writes columns as wide as they must be, the first one to the left and the others to the right.
func (t *table) rows(rows [][]cell) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, c := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text))
			if i == 0 {
				b.WriteString("  " + t.paint(c.style, c.text) + pad)
			} else {
				b.WriteString("  " + pad + t.paint(c.style, c.text))
			}
		}
		fmt.Fprintln(t.w, strings.TrimRight(b.String(), " "))
	}
}

// labelled writes a label and one line beside it.
func (t *table) labelled(label cell, text string) {
	pad := strings.Repeat(" ", max(1, labelWidth-utf8.RuneCountInString(label.text)))
	fmt.Fprintf(t.w, "  %s%s%s\n", t.paint(label.style, label.text), pad, text)
}

// wrapped writes a label and a text beside it, in lines of a width that can be read.
func (t *table) wrapped(label cell, text string) {
	const width = 96
	var line []string
	used := 0
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		if len(line) > 0 && used+n > width {
			t.labelled(label, strings.Join(line, " "))
			label, line, used = cell{}, line[:0], 0
		}
		line = append(line, word)
		used += n + 1
	}
	t.labelled(label, strings.Join(line, " "))
}

const labelWidth = 14
