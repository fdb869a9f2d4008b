// Package schedule draws faults and their times from a seed.
package schedule

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Kind is what goes wrong.
type Kind string

const (
	Reset        Kind = "reset"             // all sessions are cut
	BlackHole    Kind = "black hole"        // nothing answers For a while
	Latency      Kind = "latency"           // everything takes longer For a while
	LostAnswer   Kind = "confirmation lost" // a message is stored, and its session breaks before the answer
	KillConsumer Kind = "consumer killed"   // one member dies, and another joins
	Restart      Kind = "broker restarted"  // the broker is killed and started
)

// A Fault is one of a schedule.
type Fault struct {
	Kind Kind
	At   time.Duration // since the schedule's begin, not before
	For  time.Duration // until it is mended, if it lasts
	Who  int           // of KillConsumer: which member
}

// A Schedule is what goes wrong, in its order.
type Schedule []Fault

// New draws a schedule: least faults of the kinds, or one more, within length, each in the first half of a part of its own, so that what the one
// before broke can mend; none lasts longer than until the next one is due. The same arguments give the same schedule.
func New(seed uint64, length time.Duration, least, members int, kinds ...Kind) Schedule {
	dice := rand.New(rand.NewPCG(seed, 0))
	s := make(Schedule, least+dice.IntN(2))
	part := length / time.Duration(len(s)+1)
	for i := range s {
		s[i] = Fault{
			Kind: kinds[dice.IntN(len(kinds))],
			At:   part*time.Duration(i+1) + time.Duration(dice.Int64N(int64(part/2))),
			Who:  dice.IntN(members),
		}
	}
	next := length
	for i := len(s) - 1; i >= 0; i-- {
		longest := min(next-s[i].At, part*7/8)
		s[i].For = part/4 + time.Duration(dice.Int64N(int64(longest-part/4)))
		next = s[i].At
	}
	return s
}

// String shows the faults with their times.
func (s Schedule) String() string {
	var all []string
	for _, f := range s {
		all = append(all, fmt.Sprintf("%s at %v for %v", f.Kind, f.At.Round(time.Millisecond), f.For.Round(time.Millisecond)))
	}
	return strings.Join(all, ", ")
}
