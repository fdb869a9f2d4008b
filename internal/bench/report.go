package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A Row is what one implementation did in one shape: medians over its repetitions.
type Row struct {
	Op       string  `json:"op"`
	Shape    string  `json:"shape"`
	Callers  int     `json:"callers"`
	Size     int     `json:"size"`
	Impl     string  `json:"impl"`
	Reps     int     `json:"reps"`
	MsgsPerS float64 `json:"msgs_per_s"`

	// RatioToRaw compares msgs_per_s, repetition by repetition; of latency rows p99; where the handler's own time is the bound
	// (shape "handler="), it is the ratio to workers/time. Raw's own row compares each repetition with its median. null: there is no raw.
	RatioToRaw *Spread `json:"ratio_to_raw"`

	CPU    *float64 `json:"cpu_ns_per_msg"` // of the whole process; null: unknown on this system
	Allocs float64  `json:"allocs_per_msg"`
	Wire   *float64 `json:"wire_bytes_per_msg"` // null: there is no wire, or nobody counts
	P50    *float64 `json:"p50_us"`             // null: not a latency row
	P99    *float64 `json:"p99_us"`

	name    string
	samples []sample
}

// A Report is what a run found out.
type Report struct {
	Schema string `json:"schema"`
	Broker string `json:"broker"`
	Server string `json:"server_version"` // "" = there is no server, or it does not say
	Rows   []Row  `json:"rows"`

	o       Options
	plugs   []Plug
	without map[string]int // by implementation and reason: rows that it does not offer
	partial bool           // some rows were left out, or repetitions: not worth keeping
}

// Rates are the messages a second of the repetitions.
func (r Row) Rates() Spread {
	s := SpreadOf(each(r.samples, sample.rate))
	return Spread{round(s.Median), round(s.Min), round(s.Max)}
}

// Delays are those of all messages of all repetitions of a latency row, sorted; nil = it is none.
func (r Row) Delays() []time.Duration {
	var all []time.Duration
	for _, s := range r.samples {
		all = append(all, s.delays...)
	}
	slices.Sort(all)
	return all
}

// Partial says that the run left out rows or repetitions, so that its report is not worth keeping.
func (r *Report) Partial() bool { return r.partial }

// add puts in the rows of a shape.
func (r *Report) add(sh Shape, part []*runner) {
	figure := sample.rate
	if sh.Op == Latency {
		figure = func(s sample) float64 { return float64(Percentile(s.delays, 0.99)) }
	}
	var raw []float64
	for _, rn := range part {
		if rn.plug.Impl == Raw {
			raw = each(rn.samples, figure)
		}
	}
	for _, rn := range part {
		row := Row{Op: string(sh.Op), Shape: sh.Text(), Callers: sh.callers(), Size: sh.Size, Impl: rn.plug.Impl, Reps: len(rn.samples),
			MsgsPerS: round(Median(each(rn.samples, sample.rate))), name: sh.Name() + "/impl=" + rn.plug.Impl, samples: rn.samples}
		row.RatioToRaw = ratio(each(rn.samples, figure), raw, sh.Ideal(), rn.plug.Impl == Raw)
		row.Allocs = round(Median(each(rn.samples, func(s sample) float64 { return s.per(int64(s.mallocs)) })))
		if rn.samples[0].cpu >= 0 {
			row.CPU = median(rn.samples, func(s sample) float64 { return s.per(int64(s.cpu)) })
		}
		if rn.samples[0].wire >= 0 {
			row.Wire = median(rn.samples, func(s sample) float64 { return s.per(s.wire) })
		}
		if sh.Op == Latency {
			row.P50 = median(rn.samples, func(s sample) float64 { return micros(Percentile(s.delays, 0.50)) })
			row.P99 = median(rn.samples, func(s sample) float64 { return micros(Percentile(s.delays, 0.99)) })
		}
		r.Rows = append(r.Rows, row)
	}
}

func ratio(xs, raw []float64, ideal float64, isRaw bool) *Spread {
	var base []float64
	switch {
	case ideal > 0:
		base = repeat(ideal, len(xs))
	case isRaw:
		base = repeat(Median(xs), len(xs))
	case raw != nil:
		base = raw
	default:
		return nil
	}
	s := SpreadOf(Ratios(xs, base))
	return &Spread{round(s.Median), round(s.Min), round(s.Max)}
}

func repeat(x float64, n int) []float64 {
	xs := make([]float64, n)
	for i := range xs {
		xs[i] = x
	}
	return xs
}

func each(samples []sample, f func(sample) float64) []float64 {
	xs := make([]float64, len(samples))
	for i, s := range samples {
		xs[i] = f(s)
	}
	return xs
}

func median(samples []sample, f func(sample) float64) *float64 {
	m := round(Median(each(samples, f)))
	return &m
}

func micros(d time.Duration) float64 { return float64(d) / 1e3 }

// Write stores the report as <dir>/bench-<broker>-<variant>.json, and every repetition as .txt for benchstat.
func (r *Report) Write(dir string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	var text strings.Builder
	r.Text(&text)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	base := filepath.Join(dir, fmt.Sprintf("bench-%s-%s", r.Broker, r.o.Variant))
	if err := os.WriteFile(base+".json", append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(base+".txt", []byte(text.String()), 0o644)
}

// Text writes each repetition as a line in the format of Go benchmarks.
func (r *Report) Text(w io.Writer) {
	fmt.Fprintf(w, "goos: %s\ngoarch: %s\npkg: github.com/omnibus-go/omnibus/benchmarks\nbroker: %s\nvariant: %s\n",
		runtime.GOOS, runtime.GOARCH, r.title(), r.o.Variant)
	for _, p := range r.took() {
		fmt.Fprintf(w, "%s: %s\n", p.Impl, p.Settings)
	}
	for _, row := range r.Rows {
		for _, s := range row.samples {
			fmt.Fprintf(w, "%s-%d\t%d\t%.1f ns/op\t%.0f msgs/s", row.name, runtime.GOMAXPROCS(0), s.count, s.per(int64(s.elapsed)), s.rate())
			if s.cpu >= 0 {
				fmt.Fprintf(w, "\t%.1f cpu-ns/op", s.per(int64(s.cpu)))
			}
			if s.wire >= 0 {
				fmt.Fprintf(w, "\t%.1f wire-B/op", s.per(s.wire))
			}
			if s.delays != nil {
				fmt.Fprintf(w, "\t%.1f p50-us\t%.1f p99-us", micros(Percentile(s.delays, 0.50)), micros(Percentile(s.delays, 0.99)))
			}
			fmt.Fprintf(w, "\t%.3f allocs/op\n", s.per(int64(s.mallocs)))
		}
	}
}

// Table writes the report for a terminal.
func (r *Report) Table(out io.Writer) {
	fmt.Fprintf(out, "%s (%s), %d processors, medians of %d repetitions, interleaved\n", r.title(), r.o.Variant, runtime.GOMAXPROCS(0), r.o.Reps)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "op\tshape\tcallers\tbytes\timpl\tmsgs/s\tns/msg\tof raw\tmin\tmax\tcpu ns\tallocs\twire B\tp50 µs\tp99 µs\t")
	for _, row := range r.Rows {
		a, lo, hi := "-", "-", "-"
		if s := row.RatioToRaw; s != nil {
			a, lo, hi = fmt.Sprintf("%.3g", s.Median), fmt.Sprintf("%.3g", s.Min), fmt.Sprintf("%.3g", s.Max)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%.0f\t%.0f\t%s\t%s\t%s\t%s\t%.3g\t%s\t%s\t%s\t\n", row.Op, row.Shape, row.Callers, row.Size, row.Impl,
			row.MsgsPerS, 1e9/row.MsgsPerS, a, lo, hi, known(row.CPU), row.Allocs, known(row.Wire), known(row.P50), known(row.P99))
	}
	w.Flush()
	fmt.Fprintln(out, "\nof raw: throughput; of latency rows p99; of handler= rows the ratio to workers/time. raw's own: its repetitions to their median")
	for _, p := range r.took() {
		fmt.Fprintf(out, "%s: %s\n", p.Impl, p.Settings)
	}
	if len(r.without) > 0 {
		fmt.Fprintln(out, "not offered:")
		for _, why := range slices.Sorted(maps.Keys(r.without)) {
			fmt.Fprintf(out, "  %s: %d rows\n", why, r.without[why])
		}
	}
}

// title is the broker with its version.
func (r *Report) title() string { return strings.TrimSpace(r.Broker + " " + r.Server) }

// took are the plugs that stand in rows.
func (r *Report) took() []Plug {
	return slices.DeleteFunc(append(slices.Clone(r.plugs), Ideal()), func(p Plug) bool {
		return !slices.ContainsFunc(r.Rows, func(row Row) bool { return row.Impl == p.Impl })
	})
}

func known(x *float64) string {
	if x == nil {
		return "-"
	}
	return fmt.Sprintf("%.4g", *x)
}
