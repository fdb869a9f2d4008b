package kafka_test

import (
	"testing"

	"github.com/omnibus-go/omnibus/kafka"
)

// TestRoom tells what a source may hand out while others hold messages, and others' acks are not committed.
func TestRoom(t *testing.T) {
	for name, c := range map[string]struct {
		all        int
		main, tier [2]int // unsettled, and acked
		room       [2]int
		hurry      bool
	}{
		"nothing is held":              {10, [2]int{}, [2]int{}, [2]int{10, 10}, false},
		"what is acked has all room":   {10, [2]int{4, 6}, [2]int{}, [2]int{0, 0}, true},
		"others hold it":               {10, [2]int{1, 2}, [2]int{3, 0}, [2]int{4, 4}, false},
		"others have acked":            {10, [2]int{4, 0}, [2]int{3, 3}, [2]int{0, 0}, true},
		"nothing is acked":             {10, [2]int{6, 0}, [2]int{4, 0}, [2]int{0, 0}, false},
		"each has its own":             {0, [2]int{1, 2}, [2]int{3, 0}, [2]int{1, 1}, false},
		"its own is full":              {0, [2]int{1, 3}, [2]int{0, 0}, [2]int{0, 4}, true},
		"another one's own is no help": {0, [2]int{4, 0}, [2]int{0, 0}, [2]int{0, 4}, false},
	} {
		t.Run(name, func(t *testing.T) {
			room, hurry := kafka.Room(c.all, c.main, c.tier)
			if room != c.room || hurry != c.hurry {
				t.Errorf("there is room for %v, and hurry is %v, want %v and %v", room, hurry, c.room, c.hurry)
			}
		})
	}
}

// TestRoomWakesOthers: of sources that share their room one that has none looks again whenever another one holds less.
func TestRoomWakesOthers(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"acked", "handed back", "lane lost", "topic gone", "closed"} {
		if !kafka.Woken(how) {
			t.Errorf("%s: the other source sleeps on", how)
		}
	}
	if kafka.Woken("nothing") {
		t.Error("it looks again although nothing has changed")
	}
}
