package kafka_test

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

// TestTrackAgainstModel settles messages in any order, with gaps between their offsets, and compares with sets.
func TestTrackAgainstModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var tr kafka.Track
		numbers := map[int64]uint64{} // of what is out, by offset
		var delivered []int64
		done := map[int64]bool{}
		next := int64(rng.IntN(100))
		for range 600 {
			if rng.IntN(3) > 0 || len(numbers) == 0 {
				next += int64(1 + rng.IntN(3))
				settled := rng.IntN(10) == 0
				n := tr.Add(next, settled)
				delivered = append(delivered, next)
				if done[next] = settled; !settled {
					numbers[next] = n
				}
			} else {
				open := slices.Sorted(maps.Keys(numbers))
				o := open[min(rng.IntN(len(open)), rng.IntN(len(open)))]
				if !tr.Knows(numbers[o]) {
					t.Fatalf("seed %d: offset %d is out, and the track does not know it", seed, o)
				}
				tr.Done(numbers[o])
				if tr.Knows(numbers[o]) {
					t.Fatalf("seed %d: offset %d is settled, and the track has it still", seed, o)
				}
				delete(numbers, o)
				done[o] = true
			}
			head := int64(-1)
			if open := slices.Sorted(maps.Keys(numbers)); len(open) > 0 {
				head = open[0]
			}
			if got := tr.Head(); got != head {
				t.Fatalf("seed %d: the head is %d, want %d", seed, got, head)
			}
			if tr.Out() != len(numbers) {
				t.Fatalf("seed %d: %d are out, want %d", seed, tr.Out(), len(numbers))
			}
			if want := runsOf(delivered, done, head); !slices.Equal(tr.Runs(), want) {
				t.Fatalf("seed %d: settled beyond the head %d are %v, want %v", seed, head, tr.Runs(), want)
			}
		}
	}
}

func runsOf(delivered []int64, done map[int64]bool, head int64) (runs [][2]int64) {
	open := true
	for _, o := range delivered {
		switch {
		case head < 0 || o < head:
		case !done[o]:
			open = true
		case open:
			runs, open = append(runs, [2]int64{o, o}), false
		default:
			runs[len(runs)-1][1] = o
		}
	}
	return runs
}

// TestTrackForgetsWhatIsSettled holds one message for a long time: what is settled behind it costs next to nothing.
func TestTrackForgetsWhatIsSettled(t *testing.T) {
	t.Parallel()
	var tr kafka.Track
	held := tr.Add(0, false)
	for o := int64(1); o < 100_000; o++ {
		tr.Done(tr.Add(o, false))
	}
	if n := tr.Chunks(); n > 2 {
		t.Errorf("%d chunks are kept for one message that is held", n)
	}
	if runs := tr.Runs(); !slices.Equal(runs, [][2]int64{{1, 99_999}}) {
		t.Errorf("settled are %v", runs)
	}
	tr.Done(held)
	if tr.Head() != -1 || tr.Chunks() > 1 {
		t.Errorf("the head is %d, and %d chunks are kept; all is settled", tr.Head(), tr.Chunks())
	}
}

func TestMarkSurvives(t *testing.T) {
	t.Parallel()
	failed := map[int64]int32{1000: 3, 1007: 1}
	runs := [][2]int64{{1001, 1003}, {1009, 1009}, {5000, 1 << 40}}
	text := kafka.MarkText(1000, 2, failed, runs)
	starts, f, r := kafka.ParseMark(1000, text)
	if starts != 2 || !maps.Equal(f, failed) || !slices.Equal(r, runs) {
		t.Errorf("%q came back as %d, %v, %v", text, starts, f, r)
	}
	for _, bad := range []string{"", "somebody else's", text[:len(text)-1], text + "!", "omnibus1:", "omnibus1:////////////////////"} {
		starts, f, r := kafka.ParseMark(1000, bad)
		if starts > 2 || len(f) > 2 || len(r) > 3 {
			t.Errorf("%q was read as %d, %v, %v", bad, starts, f, r)
		}
	}
}

// TestMarkFits settles every second of many messages: what is said of them has at most as many bytes as a broker takes, and is true.
func TestMarkFits(t *testing.T) {
	t.Parallel()
	var runs [][2]int64
	for o := int64(1); o < 100_000; o += 2 {
		runs = append(runs, [2]int64{o, o})
	}
	text := kafka.MarkText(0, 0, nil, runs)
	if len(text) > 4096 {
		t.Errorf("the metadata has %d bytes, the broker takes 4096", len(text))
	}
	_, _, got := kafka.ParseMark(0, text)
	if len(got) < 1000 || !slices.Equal(got, runs[:len(got)]) {
		t.Errorf("%d of %d runs came back, the nearest first", len(got), len(runs))
	}
}

func FuzzMark(f *testing.F) {
	f.Add(int64(7), kafka.MarkText(7, 1, map[int64]int32{7: 2}, [][2]int64{{9, 12}}))
	f.Fuzz(func(t *testing.T, offset int64, text string) {
		if offset < 0 || offset > 1<<40 || !strings.HasPrefix(text, "omnibus1:") {
			return
		}
		_, _, runs := kafka.ParseMark(offset, text)
		last := offset
		for _, r := range runs {
			if r[0] < last || r[1] < r[0] {
				t.Errorf("%q was read as %v", text, runs)
			}
			last = r[1]
		}
	})
}

// TestPlanSettles lets members join and leave: after a few rounds each has as many partitions as the next one, no partition was ever given to two, and
// as few as need be have moved.
func TestPlanSettles(t *testing.T) {
	t.Parallel()
	const parts = 12
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 2))
		owned, since := map[string][]int32{"a": nil}, map[string]int32{}
		for round := range 20 {
			name := string(rune('a' + rng.IntN(6)))
			if _, in := owned[name]; in && len(owned) > 1 {
				delete(owned, name)
			} else {
				owned[name] = nil
			}
			for rest := 0; ; rest++ {
				given := kafka.Plan(owned, since, parts)
				seen := map[int32]string{}
				moved := false
				for id, list := range given {
					for _, p := range list {
						if o, twice := seen[p]; twice {
							t.Fatalf("seed %d: partition %d was given to %s and %s", seed, p, o, id)
						}
						seen[p] = id
						for other, has := range owned {
							if other != id && slices.Contains(has, p) {
								t.Fatalf("seed %d: partition %d was given to %s while %s has it", seed, p, id, other)
							}
						}
					}
				}
				for id := range owned {
					slices.Sort(given[id])
					moved = moved || !slices.Equal(given[id], owned[id])
					owned[id], since[id] = given[id], int32(round)
				}
				if !moved {
					break
				}
				if rest > 3 {
					t.Fatalf("seed %d: the plan does not settle: %v", seed, owned)
				}
			}
			least, most, all := parts, 0, 0
			for _, has := range owned {
				least, most, all = min(least, len(has)), max(most, len(has)), all+len(has)
			}
			if most-least > 1 || all != parts {
				t.Fatalf("seed %d: %v", seed, owned)
			}
		}
	}
}

// TestSurplusIsGivenUpFirst lets a topic get a partition to which belongs what was a unit of its own before.
func TestSurplusIsGivenUpFirst(t *testing.T) {
	t.Parallel()
	if got := kafka.Withhold(4, []int32{2, 5}); !slices.Equal(got, []int32{0, 1, 3}) {
		t.Errorf("partitions %v are given away, want 0, 1 and 3", got)
	}
}

// TestCommitMeetsRebalance: a commit may reach the broker when a rebalance has ended there, and we have not heard of it.
func TestCommitMeetsRebalance(t *testing.T) {
	t.Parallel()
	if again, fenced := kafka.CommitRefused(sarama.ErrIllegalGeneration); !again || fenced {
		t.Errorf("an old generation: again=%v, fenced=%v, want again", again, fenced)
	}
	if again, fenced := kafka.CommitRefused(sarama.ErrUnknownMemberId); again || !fenced {
		t.Errorf("an unknown member: again=%v, fenced=%v, want fenced", again, fenced)
	}
}

// TestMissingTopicIsBelievedLater: one broker may not have heard of a topic yet, so a group does not give everything up at once.
func TestMissingTopicIsBelievedLater(t *testing.T) {
	t.Parallel()
	first, later := kafka.Misses(3 * time.Second)
	if code, final := kafka.Classify(first); code != pubsub.ErrUnavailable || final {
		t.Errorf("at first it says %v", first)
	}
	if code, final := kafka.Classify(later); code != pubsub.ErrNotFound || final {
		t.Errorf("later it says %v", later)
	}
}

// TestMarkWithinARun stands in the middle of what was settled before, with all that was delivered forgotten: the rest of the run is kept.
func TestMarkWithinARun(t *testing.T) {
	t.Parallel()
	if runs := kafka.MarkWithin(164, 100, 200); !slices.Equal(runs, [][2]int64{{164, 200}}) {
		t.Errorf("%v came back, want 164 to 200", runs)
	}
}

// TestSettledDoesNotWaitForWhatIsGone ends a lane whose commit somebody waits for: a topic of a pattern vanishes, or the lane's next source has it.
func TestSettledDoesNotWaitForWhatIsGone(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"vanish", "release"} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if err := kafka.SettledAfter(ctx, how); err != nil {
			t.Errorf("%s: %v", how, err)
		}
		cancel()
	}
}

// TestLagAfterRetention: of what was settled beyond the commit a part, or all, may have been removed before the first offset that is there.
func TestLagAfterRetention(t *testing.T) {
	t.Parallel()
	runs := [][2]int64{{10, 19}, {30, 39}, {90, 200}} // the last one is beyond the end: it is of a log that was made again
	for from, want := range map[int64]int64{5: 75, 15: 70, 25: 65, 35: 60, 95: 5, 100: 0, 120: 0} {
		if n := kafka.OpenOffsets(from, 100, runs); n != want {
			t.Errorf("from %d on %d are open, want %d", from, n, want)
		}
	}
}
