// Package report makes one page, and one table, of the reports that runs of the conformance suite, of its mutants, of fault schedules and of
// the benchmarks have left in a folder.
//
//	set, err := report.Make("build/reports") // writes index.html there
//
// The page is a single file that refers to nothing outside: it can be sent, attached to a build, or served by anything.
package report

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/omnibus-go/omnibus/conformance"
)

// A Set is what was found in a folder. Its lists are sorted by broker, variant and version.
type Set struct {
	Conformance []Conformance // runs of the suite
	Mutants     []Mutants     // runs of the mutants
	Soak        []Soak        // runs of fault schedules
	Bench       []Bench       // runs of the benchmarks
	Others      []Other       // what is not shown, and why
}

// A File says where a report comes from.
type File struct {
	Name    string    // without the folder and ".json"
	Written time.Time // when the file was changed last; zero = unknown
}

// Conformance is a run of the suite.
type Conformance struct {
	File
	conformance.Report
}

// Mutants is a run of the mutants.
type Mutants struct {
	File
	conformance.MutantsReport
}

// Soak is a run of fault schedules.
type Soak struct {
	File
	conformance.SoakReport
}

// Bench is a run of the benchmarks: the schema omnibus.bench/1.
type Bench struct {
	File   `json:"-"`
	Broker string     `json:"broker"` // as in "nats"
	Rows   []BenchRow `json:"rows"`   // in the order in which they were measured
}

// A BenchRow is what one implementation did in one way of working. Nil is unknown.
type BenchRow struct {
	Op           string   `json:"op"`                 // "publish", "consume", "latency" or "roundtrip"
	Shape        string   `json:"shape"`              // what else tells this kind of work from others, as in "workers=16/keys=1000"
	Callers      int      `json:"callers"`            // goroutines at work on the side that is measured
	Size         int      `json:"size"`               // of a payload, in bytes
	Impl         string   `json:"impl"`               // "omnibus", "raw" (the broker's own client), or a peer's name
	Reps         int      `json:"reps"`               // repetitions, of which the figures are medians
	MsgsPerS     float64  `json:"msgs_per_s"`         // messages a second
	RatioToRaw   *Ratio   `json:"ratio_to_raw"`       // of msgs_per_s, or of p99 where it is about latency
	CPUPerMsg    *float64 `json:"cpu_ns_per_msg"`     // of the whole process, in nanoseconds
	AllocsPerMsg float64  `json:"allocs_per_msg"`     // allocations
	WirePerMsg   *float64 `json:"wire_bytes_per_msg"` // bytes both ways
	P50          *float64 `json:"p50_us"`             // of latency: what half of the messages did not exceed, in microseconds
	P99          *float64 `json:"p99_us"`             // the same of 99 in a hundred

	// what `omnibus bench` says besides, which measures a broker alone
	Rates  *Ratio  `json:"msgs_per_s_of_reps,omitempty"` // over the repetitions
	Delays []Delay `json:"delays,omitempty"`             // of all repetitions together
}

// A Delay is one that a share of the messages did not exceed.
type Delay struct {
	Share float64 `json:"share"` // 0.5 to 1
	Us    float64 `json:"us"`    // in microseconds
}

// A Ratio compares with the broker's own client in the same run; 1 is as fast. As BenchRow.Rates it is no ratio but the spread itself.
type Ratio struct {
	Median float64 `json:"median"` // over the repetitions
	Min    float64 `json:"min"`    // the smallest of them
	Max    float64 `json:"max"`    // the largest
}

// Other is a file that is not shown, and why.
type Other struct {
	File
	Why    string // in words
	Broken bool   // it should be shown, and cannot be read
}

// Read reads the reports in the root of dir, the files *.json. What it cannot read or does not know is in Set.Others; an
// error says that dir itself cannot be read. A folder that does not exist is empty.
func Read(dir fs.FS) (*Set, error) {
	names, err := fs.Glob(dir, "*.json")
	if err != nil {
		return nil, err
	}
	s := &Set{}
	for _, name := range names {
		f := File{Name: nameOf(name)}
		text, err := fs.ReadFile(dir, name)
		if info, statErr := fs.Stat(dir, name); statErr == nil {
			f.Written = info.ModTime()
		}
		if err != nil {
			s.Others = append(s.Others, Other{f, err.Error(), true})
			continue
		}
		s.add(f, text)
	}
	s.sort()
	return s, nil
}

// Of makes a Set of reports that are not in a folder, by their files' names.
func Of(files map[string][]byte) *Set {
	s := &Set{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		s.add(File{Name: nameOf(name)}, files[name])
	}
	s.sort()
	return s
}

func nameOf(file string) string { return strings.TrimSuffix(path.Base(file), ".json") }

func (s *Set) add(f File, text []byte) {
	if err := s.read(f, text); err != nil {
		s.Others = append(s.Others, Other{f, err.Error(), true})
	}
}

func (s *Set) sort() {
	slices.SortStableFunc(s.Conformance, func(a, b Conformance) int {
		return cmp.Or(cmp.Compare(a.Broker, b.Broker), cmp.Compare(a.Variant, b.Variant), cmp.Compare(a.ServerVersion, b.ServerVersion))
	})
	slices.SortStableFunc(s.Soak, func(a, b Soak) int {
		return cmp.Or(cmp.Compare(a.Broker, b.Broker), cmp.Compare(a.Variant, b.Variant))
	})
	slices.SortStableFunc(s.Bench, func(a, b Bench) int { return cmp.Compare(a.Broker, b.Broker) })
}

func (s *Set) read(f File, text []byte) error {
	var head struct {
		Schema string `json:"schema"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return err
	}
	switch head.Schema {
	case "omnibus.conformance/1":
		r := Conformance{File: f}
		if err := json.Unmarshal(text, &r.Report); err != nil {
			return err
		}
		s.Conformance = append(s.Conformance, r)
	case "omnibus.mutants/1":
		r := Mutants{File: f}
		if err := json.Unmarshal(text, &r.MutantsReport); err != nil {
			return err
		}
		s.Mutants = append(s.Mutants, r)
	case "omnibus.soak/1":
		r := Soak{File: f}
		if err := json.Unmarshal(text, &r.SoakReport); err != nil {
			return err
		}
		s.Soak = append(s.Soak, r)
	case "omnibus.bench/1":
		r := Bench{File: f}
		if err := json.Unmarshal(text, &r); err != nil {
			return err
		}
		s.Bench = append(s.Bench, r)
	case "":
		s.Others = append(s.Others, Other{File: f, Why: "it names no schema"})
	default:
		s.Others = append(s.Others, Other{File: f, Why: fmt.Sprintf("the schema %s is not known here", head.Schema)})
	}
	return nil
}

// Empty says that there is nothing to show.
func (s *Set) Empty() bool {
	return len(s.Conformance)+len(s.Mutants)+len(s.Soak)+len(s.Bench)+len(s.Others) == 0
}

// OK says whether all brokers keep their promises, also under faults, all mutants are caught, and everything could be read.
func (s *Set) OK() bool {
	return !slices.ContainsFunc(s.Conformance, func(c Conformance) bool { return !c.OK() }) &&
		!slices.ContainsFunc(s.Soak, func(k Soak) bool { return !k.OK() }) &&
		!slices.ContainsFunc(s.Mutants, func(m Mutants) bool { return len(m.escaped())+len(m.Unguarded) > 0 }) &&
		!slices.ContainsFunc(s.Others, func(o Other) bool { return o.Broken })
}

// escaped are the mutants that nothing caught.
func (m Mutants) escaped() []conformance.MutantResult {
	return slices.DeleteFunc(slices.Clone(m.MutantsReport.Mutants), func(r conformance.MutantResult) bool { return len(r.CaughtBy) > 0 })
}

// Label is what the reader knows the run by.
func (c Conformance) Label() string {
	label := c.Broker
	if c.ServerVersion != "" {
		label += " " + c.ServerVersion
	}
	if c.Variant != "default" {
		label += " " + c.Variant
	}
	return label
}

// Label is what the reader knows the run by.
func (k Soak) Label() string {
	if k.Variant == "default" {
		return k.Broker
	}
	return k.Broker + " " + k.Variant
}

// Make reads the reports in a folder and writes index.html beside them, unless there are none.
func Make(dir string) (*Set, error) {
	s, err := Read(os.DirFS(dir))
	if err != nil || s.Empty() {
		return s, err
	}
	var page bytes.Buffer
	if err := s.HTML(&page); err != nil {
		return nil, err
	}
	return s, os.WriteFile(filepath.Join(dir, PageName), page.Bytes(), 0o644)
}

// PageName is the file that Make writes.
const PageName = "index.html"
