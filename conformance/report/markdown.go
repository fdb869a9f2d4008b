package report

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Markdown writes tables for a README: what each broker's suite and fault schedules said, and of its benchmarks the few rows of comparisons; the page has
// all of them. A peer that was measured with several settings has the figure of its best.
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
	rows, peers := s.comparisons()
	head := []string{"benchmark", "omnibus", "of raw (min to max)"}
	for _, p := range peers {
		head = append(head, named(p)+", of raw")
	}
	table(w, head, len(rows), func(i int) []string { return rows[i].cells(peers) })
}

// A work is one kind of work of the benchmarks.
type work struct {
	name, op, shape string
	callers         int
}

// typical is the size of message, in bytes, that the comparisons are about.
const typical = 256

// works are those that a README has of each broker.
func works() []work {
	return []work{
		{"publish, handed over", "publish", "async", 1},
		{"publish, 64 callers wait", "publish", "blocking", 64},
		{"consume", "consume", "workers=1", 1},
		{"consume, 16 workers, keys in order", "consume", "workers=16/keys=1000", 16},
		{"p99 of the delay at 1,000 a second", latency, "rate=1000", 16},
	}
}

// A comparison is our own row of a kind of work, and the ratios of the peers.
type comparison struct {
	name  string
	own   BenchRow
	peers map[string]float64
}

// comparisons has the rows that were compared with the broker's own client, and the peers that take part in any.
func (s *Set) comparisons() (all []comparison, peers []string) {
	for _, b := range s.Bench {
		for _, k := range works() {
			c := comparison{name: b.Label() + ": " + k.name, peers: map[string]float64{}}
			for _, r := range b.Rows {
				if r.Op != k.op || r.Shape != k.shape || r.Callers != k.callers || r.Size != typical || r.RatioToRaw == nil {
					continue
				}
				switch r.Impl {
				case ours:
					c.own = r
				case "raw":
				default:
					c.note(peerOf(r.Impl), r)
				}
			}
			if c.own.RatioToRaw == nil {
				continue
			}
			all = append(all, c)
			for p := range c.peers {
				if !slices.Contains(peers, p) {
					peers = append(peers, p)
				}
			}
		}
	}
	slices.Sort(peers)
	return all, peers
}

// note keeps the best ratio of a peer: the least of delays, else the most.
func (c *comparison) note(peer string, r BenchRow) {
	x, known := c.peers[peer]
	if best := r.RatioToRaw.Median; !known || (r.Op == latency) == (best < x) {
		c.peers[peer] = best
	}
}

// peerOf is whose row it is: those of a peer with other settings than its own have more behind its name.
func peerOf(impl string) string {
	for _, peer := range []string{"watermill", "gocloud"} {
		if strings.HasPrefix(impl, peer+"-") {
			return peer
		}
	}
	return impl
}

// named is a peer as its authors write it.
func named(peer string) string {
	switch peer {
	case "watermill":
		return "Watermill"
	case "gocloud":
		return "go-cloud"
	}
	return peer
}

func (c comparison) cells(peers []string) []string {
	figure := grouped(int(c.own.MsgsPerS+0.5)) + "/s"
	if c.own.Op == latency {
		figure = nobody
		if c.own.P99 != nil {
			figure = duration(*c.own.P99)
		}
	}
	q := c.own.RatioToRaw
	cells := []string{c.name, figure, fmt.Sprintf("%.2f (%.2f to %.2f)", q.Median, q.Min, q.Max)}
	for _, p := range peers {
		text := nobody
		if x, ok := c.peers[p]; ok {
			text = ratio(x)
		}
		cells = append(cells, text)
	}
	return cells
}

// ratio writes two figures that mean something.
func ratio(x float64) string {
	if x >= 10 {
		return grouped(int(x + 0.5))
	}
	return strconv.FormatFloat(x, 'g', 2, 64)
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
