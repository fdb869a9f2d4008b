package conformance

import (
	"strings"
	"time"

	"github.com/omnibus-go/omnibus/conformance/internal/schedule"
)

// schedulesOfFaults runs schedules that follow from the seed: ten, or, on a broker that takes long to come back, as many as fit into two
// minutes. One whose faults found nothing in flight does not count, and fewer than four in five that count fail the run.
func schedulesOfFaults(e *env) {
	const (
		most, least = 10, 5
		enough      = 2 * time.Minute
		length      = 3 * time.Second
	)
	seeds := make([]uint64, most) // drawn before anything else can throw the dice
	for i := range seeds {
		seeds[i] = uint64(e.rng.below(1 << 30))
	}
	begin, schedules, counted := time.Now(), 0, 0
	for i, seed := range seeds {
		if took := time.Since(begin); i >= least && took+took/time.Duration(i) > enough { // one more would not fit
			break
		}
		schedules++
		st := newStorm(e, seed, length, 3)
		st.run()
		n, struck := 0, make([]string, len(st.struck))
		for i, f := range st.struck {
			if f.Counts() {
				n++
			}
			struck[i] = describeFault(f)
		}
		e.Logf("schedule %d: %s; %d of %d count", i, strings.Join(struck, ", "), n, len(st.faults))
		if n == len(st.faults) {
			counted++
		}
		if e.Failed() {
			e.Fatalf("that was schedule %d: %v", i, st.faults)
		}
	}
	if counted*5 < schedules*4 {
		e.Errorf("the faults of %d of %d schedules took effect and hit publishes and unsettled deliveries in flight, want four in five", counted, schedules)
	}
}

// kindsOfFaults are what may go wrong with the broker of e, and what the harness has of it. Those that all brokers know come first.
func kindsOfFaults(e *env) ([]schedule.Kind, map[schedule.Kind]Fault) {
	kinds := []schedule.Kind{schedule.Reset, schedule.BlackHole, schedule.Latency, schedule.LostAnswer, schedule.KillConsumer}
	if e.h.Kill != nil {
		kinds = append(kinds, schedule.Restart)
	}
	own := map[schedule.Kind]Fault{}
	for _, f := range e.h.Faults {
		if f.Loses && !replicated().Open(e.caps) {
			continue
		}
		kind := schedule.Kind("broker: " + f.Name)
		own[kind] = f
		kinds = append(kinds, kind)
	}
	return kinds, own
}
