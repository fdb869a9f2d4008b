package main

import (
	"testing"
	"time"
)

// What is left is told in tenths of a second, and once a moment has passed: the first message says nothing of the pace.
func TestBarSaysWhatIsLeft(t *testing.T) {
	for _, c := range []struct {
		done, total int
		since       time.Duration
		want        string
	}{
		{1, 240, 20 * time.Microsecond, "[                              ]   0 %  1 of 240"},
		{63, 240, 1556 * time.Millisecond, "[=======                       ]  26 %  63 of 240, 4.4s left"},
		{60, 240, 25 * time.Second, "[=======                       ]  25 %  60 of 240, 1m15s left"},
		{240, 240, time.Minute, "[==============================] 100 %  240 of 240"},
		{0, 240, time.Minute, "[                              ]   0 %  0 of 240"},
	} {
		if got := bar(c.done, c.total, c.since); got != c.want {
			t.Errorf("%d of %d since %v: %q, want %q", c.done, c.total, c.since, got, c.want)
		}
	}
}
