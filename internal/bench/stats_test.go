package bench_test

import (
	"slices"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/bench"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		xs   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{3, 1}, 2}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 100}, 3.5}} {
		before := slices.Clone(c.xs)
		if got := bench.Median(c.xs); got != c.want {
			t.Errorf("Median(%v) = %v, want %v", c.xs, got, c.want)
		}
		if !slices.Equal(before, c.xs) {
			t.Errorf("Median has turned %v into %v", before, c.xs)
		}
	}
}

// Ratios are those of pairs: the ratio of the medians would be another number.
func TestRatiosArePairedByRepetition(t *testing.T) {
	ours, raw := []float64{50, 90, 20}, []float64{100, 100, 10}
	if got, want := bench.SpreadOf(bench.Ratios(ours, raw)), (bench.Spread{Median: 0.9, Min: 0.5, Max: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := bench.Ratios(ours, raw[:2]); len(got) != 2 {
		t.Errorf("%v of a repetition that has no pair", got)
	}
}

func TestPercentile(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}
	for _, c := range []struct {
		ds   []time.Duration
		p    float64
		want time.Duration
	}{{hundred, 0.5, 50}, {hundred, 0.99, 99}, {hundred, 1, 100}, {hundred, 0, 1}, {hundred[:1], 0.99, 1}, {hundred[:3], 0.5, 2}} {
		if got := bench.Percentile(c.ds, c.p); got != c.want {
			t.Errorf("Percentile of %d at %v = %d, want %d", len(c.ds), c.p, got, c.want)
		}
	}
}
