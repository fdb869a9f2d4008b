package conformance

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The XML that build servers read.
type junitSuites struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Name     string       `xml:"name,attr"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Skipped  int          `xml:"skipped,attr"`
	Time     junitTime    `xml:"time,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name       string          `xml:"name,attr"`
	Tests      int             `xml:"tests,attr"`
	Failures   int             `xml:"failures,attr"`
	Skipped    int             `xml:"skipped,attr"`
	Time       junitTime       `xml:"time,attr"`
	Properties []junitProperty `xml:"properties>property"`
	Cases      []junitCase     `xml:"testcase"`
}

type junitProperty struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Time    junitTime     `xml:"time,attr"`
	Failure *junitFailure `xml:"failure"`
	Skipped *junitSkipped `xml:"skipped"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

type junitSkipped struct {
	Message string `xml:"message,attr"`
}

type junitTime float64

func (t junitTime) MarshalXMLAttr(name xml.Name) (xml.Attr, error) {
	return xml.Attr{Name: name, Value: fmt.Sprintf("%.3f", float64(t))}, nil
}

// JUnit writes the report as JUnit XML: a testsuite a group, a testcase a property.
func (r *Report) JUnit(w io.Writer) error {
	doc := junitSuites{Name: "conformance"}
	for _, p := range r.Properties {
		group, name, _ := strings.Cut(p.Name, "/")
		c := junitCase{Class: junitClass(r.Broker, r.Variant, group), Name: name, Time: junitTime(p.Seconds)}
		switch {
		case p.fails():
			c.Failure = &junitFailure{p.headline(), strings.Join(p.failures, "\n") + "\n" + r.rerun(p.Name)}
		case p.Status != Passed:
			c.Skipped = &junitSkipped{string(p.Status) + ": " + p.Reason}
		}
		doc.add(group, c, r.Broker, r.Variant, r.Seed)
	}
	return doc.write(w)
}

// JUnit writes the report as JUnit XML: a testsuite a group, a testcase a mutant.
func (r *MutantsReport) JUnit(w io.Writer) error {
	doc := junitSuites{Name: "mutants"}
	for _, m := range r.Mutants {
		group, _, _ := strings.Cut(m.Breaks, "/")
		c := junitCase{Class: junitClass(cmp.Or(r.broker, unknownBroker), r.variant, m.Breaks), Name: m.Name, Time: junitTime(m.Seconds)}
		if len(m.CaughtBy) == 0 {
			why := cmp.Or(m.escaped, "no property noticed it")
			c.Failure = &junitFailure{firstLine(why), why}
		}
		doc.add(group, c, r.broker, r.variant, r.seed)
	}
	return doc.write(w)
}

// junitClass joins what a build server shows as a tree, which dots divide.
func junitClass(parts ...string) string {
	for i, p := range parts {
		parts[i] = strings.NewReplacer(".", "_", "/", ".").Replace(cmp.Or(p, "default"))
	}
	return strings.Join(parts, ".")
}

// add puts a case into the suite of its group.
func (d *junitSuites) add(group string, c junitCase, broker, variant string, seed uint64) {
	i := 0
	for i < len(d.Suites) && d.Suites[i].Name != group {
		i++
	}
	if i == len(d.Suites) {
		d.Suites = append(d.Suites, junitSuite{Name: group, Properties: []junitProperty{
			{"broker", broker}, {"variant", variant}, {"seed", strconv.FormatUint(seed, 10)},
		}})
	}
	s := &d.Suites[i]
	s.Cases = append(s.Cases, c)
	s.Tests, d.Tests = s.Tests+1, d.Tests+1
	s.Time, d.Time = s.Time+c.Time, d.Time+c.Time
	if c.Failure != nil {
		s.Failures, d.Failures = s.Failures+1, d.Failures+1
	}
	if c.Skipped != nil {
		s.Skipped, d.Skipped = s.Skipped+1, d.Skipped+1
	}
}

func (d *junitSuites) write(w io.Writer) error {
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(d); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
