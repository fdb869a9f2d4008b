package report

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// typical is the size of message, in bytes, whose benchmark rows Markdown has.
const typical = 256

// Markdown writes tables for a README: what each broker's suite, fault schedules and benchmarks said. Of the benchmarks it has the rows of
// 256 bytes, with Watermill's for comparison.
func (s *Set) Markdown(w io.Writer) {
	table(w, []string{"suite", "properties", "confirmed", "lost", "duplicates, of allowed", "out of order", "seconds"}, len(s.Conformance), func(i int) []string {
		c := s.Conformance[i]
		f := c.sum()
		return []string{
			c.Label(), c.result(), strconv.Itoa(f.Confirmed), strconv.Itoa(f.Lost), fmt.Sprintf("%d of %d", f.Duplicates, f.DuplicateBound),
			strconv.Itoa(f.OrderViolations), fmt.Sprintf("%.0f", f.Seconds),
		}
	})
	table(w, []string{"faults under load", "minutes", "schedules", "confirmed", "lost", "duplicates, of allowed", "out of order"}, len(s.Soak), func(i int) []string {
		k := s.Soak[i]
		f := k.Totals()
		return []string{
			k.Label(), strconv.FormatFloat(k.Minutes, 'g', -1, 64), k.Result(), strconv.Itoa(f.Confirmed), strconv.Itoa(f.Lost),
			fmt.Sprintf("%d of %d", f.Duplicates, f.DuplicateBound), strconv.Itoa(f.OrderViolations),
		}
	})
	rows := s.compared()
	table(w, []string{"benchmark", "messages/s", "of raw (min to max)", "Watermill, of raw", "CPU above raw", "allocations above raw", "p50 / p99"}, len(rows), func(i int) []string {
		return rows[i].cells()
	})
}

// A compared row is ours with those of others in the same kind of work; nil = there is none.
type compared struct {
	broker               string
	own, raw, watermills *BenchRow
}

func (s *Set) compared() (all []compared) {
	for _, b := range s.Bench {
		find := func(like *BenchRow, impl string) *BenchRow {
			i := slices.IndexFunc(b.Rows, func(r BenchRow) bool {
				return r.Impl == impl && r.Op == like.Op && r.Shape == like.Shape && r.Callers == like.Callers && r.Size == like.Size
			})
			if i < 0 {
				return nil
			}
			return &b.Rows[i]
		}
		for i := range b.Rows {
			if r := &b.Rows[i]; r.Impl == ours && r.Size == typical {
				all = append(all, compared{b.Broker, r, find(r, "raw"), find(r, "watermill")})
			}
		}
	}
	return all
}

func (c compared) cells() []string {
	what := fmt.Sprintf("%s: %s %s", c.broker, c.own.Op, c.own.Shape)
	if c.own.Callers > 1 && !strings.Contains(c.own.Shape, "workers=") {
		what += fmt.Sprintf(" × %d", c.own.Callers)
	}
	cells := []string{what, fmt.Sprintf("%.0f", c.own.MsgsPerS), "", "", "", "", ""}
	if x := c.own.RatioToRaw; x != nil {
		cells[2] = fmt.Sprintf("%.2f (%.2f to %.2f)", x.Median, x.Min, x.Max)
	}
	if c.watermills != nil && c.watermills.RatioToRaw != nil {
		cells[3] = fmt.Sprintf("%.3f", c.watermills.RatioToRaw.Median)
	}
	if c.raw != nil {
		if c.raw.CPUPerMsg != nil && c.own.CPUPerMsg != nil {
			cells[4] = fmt.Sprintf("%+.0f ns", *c.own.CPUPerMsg-*c.raw.CPUPerMsg)
		}
		cells[5] = fmt.Sprintf("%+.1f", c.own.AllocsPerMsg-c.raw.AllocsPerMsg)
	}
	if c.own.P50 != nil && c.own.P99 != nil {
		cells[6] = fmt.Sprintf("%.0f / %.0f µs", *c.own.P50, *c.own.P99)
	}
	return cells
}

// table writes nothing if it would have no rows.
func table(w io.Writer, head []string, rows int, cells func(i int) []string) {
	if rows == 0 {
		return
	}
	line := func(cells []string) { fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")) }
	fmt.Fprintln(w)
	line(head)
	line(slices.Repeat([]string{"---"}, len(head)))
	for i := range rows {
		line(cells(i))
	}
}
