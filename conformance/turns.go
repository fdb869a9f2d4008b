package conformance

import (
	"cmp"
	"slices"
	"sync"
)

// atOnce is how many properties that mostly wait run at once, beside one that works. More of them would take that one's time away, on two cores.
const atOnce = 4

// inTurn calls do for each property and returns when all have ended. Those that mostly wait run side by side, and meanwhile the others one after
// another, as they come; the waiting that takes longest begins first. Those that must be alone come before them, while the broker has few topics: Kafka recovers
// each of them at a restart, which takes minutes once every property has made its own. In a Wrap, whose clock may be a virtual one, waiting costs nothing:
// there each runs by itself, as they come.
func (h Harness) inTurn(props []Property, do func(Property)) {
	var waiting, working, lonely []Property
	for _, p := range props {
		switch {
		case h.Wrap != nil:
			working = append(working, p)
		case p.alone:
			lonely = append(lonely, p)
		case p.waits > 0:
			waiting = append(waiting, p)
		default:
			working = append(working, p)
		}
	}
	for _, p := range lonely {
		do(p)
	}
	slices.SortStableFunc(waiting, func(a, b Property) int { return cmp.Compare(b.waits, a.waits) })
	next := make(chan Property, len(waiting))
	for _, p := range waiting {
		next <- p
	}
	close(next)
	var aside sync.WaitGroup
	for range atOnce {
		aside.Go(func() {
			for p := range next {
				do(p)
			}
		})
	}
	for _, p := range working {
		do(p)
	}
	aside.Wait()
}
