package report

import (
	"embed"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/omnibus-go/omnibus/conformance"
)

//go:embed page.html page.css page.js
var files embed.FS

// HTML writes the page: what each broker keeps and does not, property by property, what every property means, which mutants show that it
// can fail, and how fast the brokers are. What a report says that was written by another version of the suite is shown, too; properties that
// this one does not know have no text.
func (s *Set) HTML(w io.Writer) error {
	t, err := template.New("page.html").Funcs(template.FuncMap{
		"n": grouped, "secs": seconds, "opt": optional, "rate": func(f float64) string { return grouped(int(f)) }, "glyph": glyph,
		"parts": func(s string) []string { return strings.SplitAfter(s, "/") },
		"line":  func(s string) string { first, _, _ := strings.Cut(s, "\n"); return first },
	}).ParseFS(files, "*")
	if err != nil {
		return err
	}
	return t.Execute(w, s.page())
}

// page is what the template shows.
type page struct {
	*Set
	Keeping  int // brokers that keep what they declare
	Brokers  []brokerCard
	Promises []promiseRow
	Groups   []groupRows
	Features []featureRow
	Charts   []chart
	Wide     bool // few brokers: there is room for words,
	Roomy    bool // even for sentences
}

type brokerCard struct {
	Conformance
	Index  int
	Label  string
	Counts []statusCount
	Sum    conformance.PropertyResult
	Bad    int // properties that fail the run
	Known  int // properties that are known to fail
}

type statusCount struct {
	Status conformance.Status
	N      int
	X, W   float64 // in percent of the bar
}

type promiseRow struct {
	conformance.Promise
	Properties int
	Cells      []promiseCell
}

type promiseCell struct {
	Status          conformance.Status // the worst; "" = nothing was asked
	Kept, Of, Gated int
}

type groupRows struct {
	Name string
	Rows []propertyRow
}

type propertyRow struct {
	conformance.Property
	Known    bool     // to this version of the suite
	Words    []string // of the name's second half: it may break between them
	Index    int
	Promises []conformance.Promise
	Mutants  []mutantRow
	Cells    []cell
	Statuses string // of all brokers, for the filter
	Differs  bool   // from broker to broker
}

type mutantRow struct {
	conformance.MutantResult
	Tried bool // there is a report of it
}

type cell struct {
	conformance.PropertyResult
	Broker  *brokerCard
	Missing bool // the report does not have the property
	Rank    int  // the worse the smaller
	Command string
}

type featureRow struct {
	Name   string
	Values []string
}

func (s *Set) page() *page {
	p := &page{Set: s, Wide: len(s.Conformance) <= 4, Roomy: len(s.Conformance) <= 2, Charts: s.charts()}
	for i, c := range s.Conformance {
		card := brokerCard{Conformance: c, Index: i, Label: c.Label(), Sum: c.sum(), Known: c.count(conformance.KnownFailing)}
		x := 0.0
		for _, st := range statuses() {
			n := c.count(st)
			w := 100 * float64(n) / float64(max(1, len(c.Properties)))
			card.Counts = append(card.Counts, statusCount{st, n, x, w})
			x += w
		}
		for _, r := range c.Properties {
			if fails(r) {
				card.Bad++
			}
		}
		if c.OK() {
			p.Keeping++
		}
		p.Brokers = append(p.Brokers, card)
	}
	p.properties()
	p.promises()
	p.features()
	return p
}

// fails says whether a property fails its run.
func fails(r conformance.PropertyResult) bool {
	return r.Status == conformance.Failed || r.Status == conformance.NotRun && r.Reason == ""
}

// properties fills the matrix: the suite's own properties in its order, then what else the reports have.
func (p *page) properties() {
	if len(p.Brokers) == 0 {
		return
	}
	tried := map[string][]mutantRow{}
	for _, m := range p.Mutants {
		for _, r := range m.MutantsReport.Mutants {
			tried[r.Breaks] = append(tried[r.Breaks], mutantRow{r, true})
		}
	}
	for _, m := range conformance.Mutants() {
		if !slices.ContainsFunc(tried[m.Breaks], func(r mutantRow) bool { return r.Name == m.Name }) {
			tried[m.Breaks] = append(tried[m.Breaks], mutantRow{conformance.MutantResult{Name: m.Name, Breaks: m.Breaks}, false})
		}
	}
	known := map[string]bool{}
	add := func(prop conformance.Property, isKnown bool) {
		known[prop.Name] = true
		group, short, _ := strings.Cut(prop.Name, "/")
		row := propertyRow{Property: prop, Known: isKnown, Words: words(short), Index: len(known), Mutants: tried[prop.Name]}
		for _, n := range prop.Promises {
			row.Promises = append(row.Promises, conformance.Promises()[n-1])
		}
		asked := false
		for i := range p.Brokers {
			c := p.Brokers[i].cell(prop.Name)
			asked = asked || !c.Missing
			row.Statuses += string(c.Status) + " "
			row.Cells = append(row.Cells, c)
			row.Differs = row.Differs || c.Status != row.Cells[0].Status
		}
		if !asked {
			return // newer than all reports
		}
		i := slices.IndexFunc(p.Groups, func(g groupRows) bool { return g.Name == group })
		if i < 0 {
			i = len(p.Groups)
			p.Groups = append(p.Groups, groupRows{Name: group})
		}
		p.Groups[i].Rows = append(p.Groups[i].Rows, row)
	}
	for _, prop := range conformance.Properties() {
		add(prop, true)
	}
	for _, b := range p.Brokers {
		for _, r := range b.Properties {
			if !known[r.Name] {
				add(conformance.Property{Name: r.Name, Gate: conformance.Gate{Text: r.Gate}}, false)
			}
		}
	}
}

// words divides a name in front of its capitals.
func words(name string) (list []string) {
	from := 0
	for i := 1; i < len(name); i++ {
		if unicode.IsUpper(rune(name[i])) && unicode.IsLower(rune(name[i-1])) {
			list = append(list, name[from:i])
			from = i
		}
	}
	return append(list, name[from:])
}

// cell is what the broker's report says of a property.
func (b *brokerCard) cell(name string) cell {
	i := slices.IndexFunc(b.Properties, func(r conformance.PropertyResult) bool { return r.Name == name })
	if i < 0 {
		return cell{Broker: b, Missing: true, Rank: 9}
	}
	c := cell{Broker: b, PropertyResult: b.Properties[i]}
	c.Rank = slices.Index([]conformance.Status{
		conformance.Failed, conformance.NotRun, conformance.KnownFailing, conformance.Gated, conformance.Passed,
	}, c.Status)
	race := ""
	if b.Race {
		race = " -race"
	}
	c.Command = fmt.Sprintf("SEED=%d go test%s -run 'TestConformance/%s$'", b.Seed, race, name)
	return c
}

// Fails says whether the property fails the broker's run.
func (c cell) Fails() bool { return fails(c.PropertyResult) }

// Known says whether the property fails as the harness says that it does.
func (c cell) Known() bool { return c.Status == conformance.KnownFailing }

// promises says for each promise how many of its properties a broker keeps.
func (p *page) promises() {
	if len(p.Brokers) == 0 {
		return
	}
	for _, promise := range conformance.Promises() {
		row := promiseRow{Promise: promise, Cells: make([]promiseCell, len(p.Brokers))}
		for _, g := range p.Groups {
			for _, prop := range g.Rows {
				if !slices.Contains(prop.Property.Promises, promise.Number) {
					continue
				}
				row.Properties++
				for i, c := range prop.Cells {
					row.Cells[i].add(c)
				}
			}
		}
		p.Promises = append(p.Promises, row)
	}
}

func (pc *promiseCell) add(c cell) {
	if c.Missing {
		return
	}
	pc.Of++
	switch c.Status {
	case conformance.Passed:
		pc.Kept++
	case conformance.Gated:
		pc.Gated++
	}
	worst := []conformance.Status{"", conformance.Gated, conformance.Passed, conformance.KnownFailing, conformance.NotRun, conformance.Failed}
	if slices.Index(worst, c.Status) > slices.Index(worst, pc.Status) {
		pc.Status = c.Status
	}
}

// features lists the capabilities of all brokers.
func (p *page) features() {
	names := map[string]bool{}
	for _, b := range p.Brokers {
		for name := range b.Capabilities {
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		row := featureRow{Name: name}
		for _, b := range p.Brokers {
			row.Values = append(row.Values, feature(b.Capabilities[name]))
		}
		p.Features = append(p.Features, row)
	}
}

func feature(v any) string {
	switch x := v.(type) {
	case nil:
		return ""
	case bool:
		if x {
			return "✓"
		}
		return "–"
	case float64:
		return grouped(int(x))
	}
	return fmt.Sprint(v)
}

// glyph makes a status readable without colours.
func glyph(s conformance.Status) string {
	switch s {
	case conformance.Passed:
		return "✓"
	case conformance.Failed:
		return "✗"
	case conformance.KnownFailing:
		return "!"
	case conformance.Gated:
		return "–"
	case conformance.NotRun:
		return "?"
	}
	return ""
}

// grouped writes a number with a comma at every thousand.
func grouped(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func seconds(s float64) string {
	if s < 10 {
		return fmt.Sprintf("%.2f", s)
	}
	return grouped(int(s + 0.5))
}

// optional writes a figure that may be unknown.
func optional(f *float64) string {
	switch {
	case f == nil:
		return "–"
	case *f < 10:
		return strconv.FormatFloat(*f, 'f', 2, 64)
	}
	return grouped(int(*f + 0.5))
}

// FigureNames heads the columns of figures.
func (p *page) FigureNames() []string {
	return []string{"seconds", "confirmed", "received", "lost", "dup / bound", "out of order"}
}

// Columns is how wide the matrix is.
func (p *page) Columns() int { return 1 + len(p.Brokers) + len(p.FigureNames()) }

// A figure is a number, and what is to be thought of it.
type figure struct {
	Text string
	Tone string // a class of the page: "zero", "fail"
}

// Figures are those below FigureNames.
func (c cell) Figures() []figure {
	if c.Missing {
		return make([]figure, 6)
	}
	count := func(n int, text string, bad bool) figure {
		switch {
		case bad:
			return figure{text, "fail"}
		case n == 0:
			return figure{text, "zero"}
		}
		return figure{text, ""}
	}
	return []figure{
		{seconds(c.Seconds), ""},
		count(c.Confirmed, grouped(c.Confirmed), false),
		count(c.Received, grouped(c.Received), false),
		count(c.Lost, grouped(c.Lost), c.Lost > 0),
		count(c.Duplicates+c.DuplicateBound, grouped(c.Duplicates)+" / "+grouped(c.DuplicateBound), c.Duplicates > c.DuplicateBound),
		count(c.OrderViolations, grouped(c.OrderViolations), c.OrderViolations > 0),
	}
}

// FigureList is Figures as the page's script reads them.
func (c cell) FigureList() string {
	var list []string
	for _, f := range c.Figures() {
		list = append(list, f.Tone+":"+f.Text)
	}
	return strings.Join(list, "|")
}
