package drivers_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/drivers"
)

func TestPartitionOf(t *testing.T) {
	for key, want := range map[string]int32{"": 5, "a": 4, "order-1": 5, "ü": 2} { // fixed for ever: other members and other versions agree
		if got := drivers.PartitionOf(key, 8); got != want {
			t.Errorf("key %q lies in partition %d, want %d", key, got, want)
		}
		for _, few := range []int{-1, 0, 1} {
			if got := drivers.PartitionOf(key, few); got != 0 {
				t.Errorf("key %q lies in partition %d of %d", key, got, few)
			}
		}
	}
	seen := map[int32]int{}
	for i := range 1000 {
		seen[drivers.PartitionOf(fmt.Sprint("key-", i), 4)]++
	}
	for n := range int32(4) {
		if seen[n] < 150 {
			t.Errorf("partition %d has %d of 1000 keys", n, seen[n])
		}
	}
}

func TestWithTimeout(t *testing.T) {
	ctx, cancel := drivers.WithTimeout(t.Context(), time.Hour)
	at, ok := ctx.Deadline()
	if left := time.Until(at); !ok || left < 59*time.Minute || left > time.Hour {
		t.Errorf("it ends in %v", left)
	}
	own, end := drivers.WithTimeout(ctx, time.Second)
	if other, _ := own.Deadline(); other != at {
		t.Errorf("what was to end at %v ends at %v", at, other)
	}
	end()
	cancel()
	if context.Cause(ctx) == nil {
		t.Error("it is not cancelled")
	}
}

// Whoever looks gets what there is, then the error, and nothing once he has seen enough.
func TestWalk(t *testing.T) {
	broken := errors.New("broken")
	walk := func(yield func(string) bool) error {
		for _, v := range []string{"a", "b", "c"} {
			if !yield(v) {
				break
			}
		}
		return broken
	}
	for enough, want := range map[int][]string{1: {"a"}, 3: {"a", "b", "c"}, 9: {"a", "b", "c", "broken"}} {
		var got []string
		for v, err := range drivers.Walk(walk) {
			if err != nil {
				v = err.Error()
			}
			if got = append(got, v); len(got) == enough {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("who wants %d gets %q, want %q", enough, got, want)
		}
	}
}
