package report

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A chart compares implementations at one kind of work on one broker.
type chart struct {
	Title string
	Note  string
	Rows  []chartRow
	Curve *curve // how delays are distributed; nil: nobody says

	// What its table has a column for: what no row says is left out.
	Bars        string // what the bars are; "" = there are none
	Peers       bool   // others than ours
	Wire, Delay bool
}

type chartRow struct {
	BenchRow
	First bool // of its shape: the others are compared with it
	Ours  bool
	Bar   *bar // nil: nothing to compare with
}

// A bar in per cent of the chart's width.
type bar struct {
	Median, Min, Max float64
	One              float64 // where the broker's own client is; 0 = it is not there
	Over             bool    // longer than the chart
}

// charts groups the rows of the benchmarks by broker and operation, and in them by shape.
func (s *Set) charts() (all []chart) {
	for _, b := range s.Bench {
		var ops []string
		byOp := map[string][]BenchRow{}
		for _, r := range b.Rows {
			if byOp[r.Op] == nil {
				ops = append(ops, r.Op)
			}
			byOp[r.Op] = append(byOp[r.Op], r)
		}
		for _, op := range ops {
			rows := byOp[op]
			slices.SortStableFunc(rows, func(a, b BenchRow) int {
				return cmp.Or(cmp.Compare(a.Shape, b.Shape), cmp.Compare(a.Callers, b.Callers), cmp.Compare(a.Size, b.Size))
			})
			c := chart{Title: b.Label() + ": " + op, Note: note(rows)}
			scale, fastest := scaleOf(rows), fastestOf(rows)
			for i, r := range rows {
				row := chartRow{BenchRow: r, First: i == 0 || shape(rows[i-1]) != shape(r), Ours: r.Impl == ours}
				if q := r.RatioToRaw; q != nil {
					at := func(f float64) float64 { return 100 * min(f, scale) / scale }
					row.Bar, c.Bars = &bar{at(q.Median), at(q.Min), at(q.Max), 100 / scale, q.Median > scale}, "ratio"
				} else if q := r.Rates; q != nil && op != latency { // of latency the rate is given
					at := func(f float64) float64 { return 100 * f / fastest }
					row.Bar, c.Bars = &bar{Median: at(q.Median), Min: at(q.Min), Max: at(q.Max)}, "least to most"
				}
				c.Peers = c.Peers || !row.Ours
				c.Wire = c.Wire || r.WirePerMsg != nil
				c.Delay = c.Delay || r.P50 != nil || r.P99 != nil
				if len(r.Delays) > 1 && c.Curve == nil {
					c.Curve = newCurve(r.Delays)
				}
				c.Rows = append(c.Rows, row)
			}
			all = append(all, c)
		}
	}
	return all
}

// note says how the bars are to be read.
func note(rows []BenchRow) string {
	const legend = ", as a ratio to the broker's own client in the same run. The bar is the median, the thin line goes from the least to the most, the upright is 1; "
	has := func(f func(r BenchRow) bool) bool { return slices.ContainsFunc(rows, f) }
	switch {
	case has(func(r BenchRow) bool { return len(r.Delays) > 1 }):
		return "From the call that publishes to the handler, at a fixed rate: so many in a hundred messages took no longer."
	case has(func(r BenchRow) bool { return r.Rates != nil }):
		return "Messages a second. The bar is the median, the thin line goes from the least to the most; longer is faster."
	case !has(func(r BenchRow) bool { return r.RatioToRaw != nil }):
		return "There is no client of the broker's own to compare with."
	case rows[0].Op == latency:
		return "The 99th percentile of the delay" + legend + "shorter is faster."
	}
	return "Messages a second" + legend + "longer is faster."
}

// scaleOf is the ratio at the right end: one outlier does not make all others short.
func scaleOf(rows []BenchRow) float64 {
	const least, most = 1.25, 2.5
	scale := least
	for _, r := range rows {
		if r.RatioToRaw != nil {
			scale = max(scale, 1.05*r.RatioToRaw.Max)
		}
	}
	return min(scale, most)
}

// fastestOf is the right end where nothing is compared with.
func fastestOf(rows []BenchRow) (most float64) {
	for _, r := range rows {
		if r.Rates != nil {
			most = max(most, r.Rates.Max)
		}
	}
	return most
}

// A curve shows delays over the share of the messages that they cover: both axes are logarithmic, so that the slowest are as visible as the rest.
type curve struct {
	Points string // of a polyline
	Dots   []dot
	Lines  []dot // of the powers of ten
}

type dot struct {
	X, Y  float64
	Label string // of the axis
	Value string
}

// The chart of a curve, in its own units. The template has the same.
const (
	curveLeft, curveRight = 60, 580
	curveFirst            = 100 // clear of the axis, whose labels its value would lie upon
	curveTop, curveBottom = 20, 190
)

func newCurve(delays []Delay) *curve {
	least, most := math.Inf(1), 0.0
	for _, d := range delays {
		least, most = min(least, d.Us), max(most, d.Us)
	}
	if least <= 0 {
		least = 1
	}
	from, to := math.Floor(math.Log10(least)), math.Ceil(math.Log10(max(most, least)))
	if from == to {
		to++
	}
	y := func(us float64) float64 {
		return curveBottom - (math.Log10(us)-from)/(to-from)*(curveBottom-curveTop)
	}
	c := &curve{}
	for i, d := range delays {
		x := curveFirst + float64(i)/float64(len(delays)-1)*(curveRight-curveFirst)
		at := y(max(d.Us, least))
		label := "p" + strconv.FormatFloat(100*d.Share, 'f', -1, 64)
		if d.Share >= 1 {
			label = "max"
		}
		c.Dots = append(c.Dots, dot{x, at, label, duration(d.Us)})
		c.Points += strconv.FormatFloat(x, 'f', 1, 64) + "," + strconv.FormatFloat(at, 'f', 1, 64) + " "
	}
	for e := from; e <= to; e++ {
		c.Lines = append(c.Lines, dot{curveLeft, y(math.Pow(10, e)), duration(math.Pow(10, e)), ""})
	}
	return c
}

// duration writes microseconds in the unit that suits them.
func duration(us float64) string {
	switch {
	case us < 1e3:
		return strconv.FormatFloat(us, 'f', 0, 64) + " µs"
	case us < 1e6:
		return strconv.FormatFloat(us/1e3, 'g', 3, 64) + " ms"
	}
	return strconv.FormatFloat(us/1e6, 'g', 3, 64) + " s"
}

// shape is what rows have in common that are compared.
func shape(r BenchRow) string {
	return r.Shape + " " + strconv.Itoa(r.Callers) + " " + strconv.Itoa(r.Size)
}

// latency is the operation whose ratio is one of delays.
const latency = "latency"

// ours is how the rows name this module, among others and "raw", the broker's own client.
const ours = "omnibus"

// Label is what the reader knows the run by: the schema has no variant, but the file's name has.
func (b Bench) Label() string {
	variant := strings.TrimPrefix(strings.TrimPrefix(b.Name, "bench-"), b.Broker+"-")
	if variant == "default" || variant == b.Name || variant == b.Broker {
		return b.Broker
	}
	return b.Broker + " " + variant
}

// Span is how long the line from the least to the most is.
func (b bar) Span() float64 { return max(b.Max-b.Min, 0.5) }
