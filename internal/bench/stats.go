package bench

import (
	"math"
	"slices"
	"time"
)

// A Spread is what several repetitions gave.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// SpreadOf returns the spread of xs, which is not empty.
func SpreadOf(xs []float64) Spread {
	return Spread{Median(xs), slices.Min(xs), slices.Max(xs)}
}

// Median is the middle of xs, which is not empty, or the mean of the two in the middle.
func Median(xs []float64) float64 {
	sorted := slices.Sorted(slices.Values(xs))
	mid := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[mid]
	}
	return (sorted[mid-1] + sorted[mid]) / 2
}

// Ratios divides xs by base, repetition by repetition: what slowed the machine down for a while slowed down both of a pair.
func Ratios(xs, base []float64) []float64 {
	out := make([]float64, min(len(xs), len(base)))
	for i := range out {
		out[i] = xs[i] / base[i]
	}
	return out
}

// Percentile is the smallest of sorted, which is not empty, that p of them (0 to 1) do not exceed.
func Percentile(sorted []time.Duration, p float64) time.Duration {
	i := int(math.Ceil(p*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// round keeps four digits: more would be noise.
func round(x float64) float64 {
	if x == 0 || math.IsInf(x, 0) || math.IsNaN(x) {
		return x
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(x))))
	return math.Round(x*scale) / scale
}
