package pubsub

import "testing"

// What the quarantine has delivered to this process before is told from what it has not, also where messages have no positions.
func TestSuspect(t *testing.T) {
	t.Parallel()
	for _, pos := range []Position{{}, NewPosition(1, 1, 0, 0)} {
		next := pos
		if pos != (Position{}) {
			next = NewPosition(1, 2, 0, 0)
		}
		first, second := Record{Msg: &Message{ID: "first"}, Pos: pos}, Record{Msg: &Message{ID: "second"}, Pos: next}
		f := new(feed)
		for i, step := range []struct {
			r    *Record
			want int32
		}{{&first, 0}, {&first, 1}, {&second, 0}, {&second, 1}, {&second, 2}, {&first, 0}} {
			if got := f.survived(step.r); got != step.want {
				t.Errorf("step %d, %s: survived %d times, want %d", i, step.r.Msg.ID, got, step.want)
			}
		}
	}
	f := new(feed)
	for _, r := range []Record{{Msg: &Message{ID: "a"}}, {Msg: &Message{ID: "a"}, Failed: 1}, {Msg: &Message{}}, {Msg: &Message{}}, {Msg: &Message{}, Failed: 1}} {
		if got := f.survived(&r); got != 0 {
			t.Errorf("a copy, or what has no name, survived %d times", got)
		}
	}
}
