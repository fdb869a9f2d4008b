package report

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// A chart compares implementations at one kind of work on one broker.
type chart struct {
	Title string
	Note  string
	Rows  []chartRow
}

type chartRow struct {
	BenchRow
	First bool // of its shape: the others are compared with it
	Ours  bool
	Bar   *bar // nil: nothing to compare with
}

// A bar in per cent of the chart's width.
type bar struct {
	Median, Min, Max, One float64
	Over                  bool // longer than the chart
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
			scale := scaleOf(rows)
			for i, r := range rows {
				row := chartRow{BenchRow: r, First: i == 0 || shape(rows[i-1]) != shape(r), Ours: r.Impl == ours}
				if q := r.RatioToRaw; q != nil {
					at := func(f float64) float64 { return 100 * min(f, scale) / scale }
					row.Bar = &bar{at(q.Median), at(q.Min), at(q.Max), 100 / scale, q.Median > scale}
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
	switch {
	case !slices.ContainsFunc(rows, func(r BenchRow) bool { return r.RatioToRaw != nil }):
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
