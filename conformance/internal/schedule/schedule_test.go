package schedule_test

import (
	"slices"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/conformance/internal/schedule"
)

func TestSeed(t *testing.T) {
	const length = 2 * time.Second
	kinds := []schedule.Kind{schedule.Reset, schedule.BlackHole, schedule.Latency, schedule.LostAnswer, schedule.KillConsumer, schedule.Restart}
	seen, different := map[schedule.Kind]bool{}, 0
	for seed := range uint64(100) {
		s := schedule.New(seed, length, 3, 3, kinds...)
		if again := schedule.New(seed, length, 3, 3, kinds...); !slices.Equal(s, again) {
			t.Fatalf("seed %d gives %v, and then %v", seed, s, again)
		}
		if !slices.Equal(s, schedule.New(seed+1, length, 3, 3, kinds...)) {
			different++
		}
		if len(s) < 3 || len(s) > 4 || !slices.IsSortedFunc(s, func(a, b schedule.Fault) int { return int(a.At - b.At) }) {
			t.Errorf("seed %d gives %v", seed, s)
		}
		for i, f := range s {
			next := length
			if i+1 < len(s) {
				next = s[i+1].At
			}
			if f.At+f.For > next {
				t.Errorf("seed %d: %+v lasts longer than until the next at %v", seed, f, next)
			}
			seen[f.Kind] = true
			if f.At < length/10 || f.At > length || f.Who < 0 || f.Who > 2 || f.For <= 0 || f.For > length/4 {
				t.Errorf("seed %d gives %+v", seed, f)
			}
		}
	}
	if different < 99 || len(seen) != len(kinds) {
		t.Errorf("%d of 100 seeds differ from the next, %d of %d kinds occur", different, len(seen), len(kinds))
	}
}
