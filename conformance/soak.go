package conformance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/omnibus-go/omnibus/internal/resident"
	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	soakLength = 9 * time.Second // of the faults; with what they hold up a schedule takes some 20 s
	soakTaste  = 2               // schedules where no time is given: the suite has more
)

// Soak runs fault schedules against the broker of h, each as a subtest of t: for as many minutes as MINUTES in the environment says, the
// last one to its end, and then writes the report. Without MINUTES it runs two, and no report is worth keeping. The schedules have
// the seeds SEED, SEED+1 and so on: to see one again, its seed is to be SEED.
//
// t fails where a schedule loses a confirmed message, breaks the order of a key, or handles more messages again than were in flight when
// its faults struck; where fewer than four in five schedules had an effect; and where fewer of them had one than the time allows: three in two
// minutes, at most 30. A schedule has an effect if each of its faults is seen to work, and hits publishes and unsettled deliveries.
//
// R is *testing.T. A broker without Redelivery is refused.
func Soak[R Runner[R]](t R, h Harness) {
	t.Helper()
	base, err := newReport(h)
	if err != nil {
		t.Fatalf("%v", err)
	}
	minutes, err := soakMinutes()
	if err != nil {
		t.Fatalf("%v", err)
	}
	rep := &SoakReport{Schema: "omnibus.soak/1", Broker: unknownBroker, Variant: base.Variant, Schedules: []SoakSchedule{}, base: base, test: t.Name(), Minutes: minutes}
	begin := time.Now()
	elapsed := func() float64 { return time.Since(begin).Minutes() }
	for i := uint64(0); minutes > 0 && elapsed() < minutes || minutes == 0 && i < soakTaste; i++ {
		s := SoakSchedule{Seed: base.Seed + i, Faults: []SoakFault{}, Failures: []string{harnessPrefix + "Wrap ended the schedule's test before the schedule had ended"}}
		selected := false
		t.Run(fmt.Sprintf("SEED=%d", s.Seed), func(t R) {
			selected = true
			defer func() {
				rep.Schedules = append(rep.Schedules, s)
				for _, f := range s.Failures {
					t.Errorf("%s", f)
				}
				t.Logf("%s", s.line())
				if len(s.Failures) > 0 {
					t.Errorf("to see it again: %s; its history: %s", rep.rerun(s.Seed), rep.keep(s))
				}
			}()
			s = soak(t, h, s.Seed, rep)
		})
		if !selected {
			t.Fatalf("no schedule is selected: to see one again, set SEED to its seed and run the whole test")
		}
	}
	rep.seconds = time.Since(begin).Seconds()
	var table strings.Builder
	rep.Table(&table)
	t.Logf("%s", table.String())
	for _, f := range rep.Failures() {
		t.Errorf("%s", f)
	}
	if minutes == 0 {
		return
	}
	dir, err := ReportDir()
	if err == nil {
		err = rep.Write(dir)
	}
	if err != nil {
		t.Errorf("%v", err)
	}
}

// soakFaults is how many faults a schedule has at least: each may last a second, and be followed by a recovery.
func soakFaults(recovery time.Duration) int {
	return min(max(int(soakLength/(cmp.Or(recovery, 2*time.Second)+time.Second)), 1), 3)
}

func soakMinutes() (float64, error) {
	text := os.Getenv("MINUTES")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("conformance: MINUTES is %q, not a number above 0", text)
	}
	return n, nil
}

// soak runs one schedule.
func soak(outer T, h Harness, seed uint64, rep *SoakReport) (s SoakSchedule) {
	s = SoakSchedule{Seed: seed, Faults: []SoakFault{}, Failures: []string{}}
	begin := time.Now()
	t := &trial{name: fmt.Sprintf("Soak/SEED=%d", seed)}
	var e *env
	var st *storm
	func() {
		defer func() {
			if r := recover(); r != nil { // a bubble that cannot end, for instance
				t.Errorf("%s%v", harnessPrefix, r)
			}
		}()
		calls := 0
		h.wrap(outer, func() {
			calls++
			if h.Fresh != nil {
				h = h.Fresh()
			}
			ctx, cancel := context.WithTimeout(context.Background(), propertyTime)
			defer cancel()
			t.ctx = ctx
			e = &env{T: t, h: h, run: runName("Soak"), rng: newDice(seed, "Soak")}
			t.run(func() {
				d, err := e.h.Driver(ctx)
				e.must(err, "connect")
				e.caps, e.adapter = d.Capabilities(), d.Name()
				rep.Broker = e.adapter
				e.must(d.Close(ctx), "close a driver")
				if !redelivers().Open(e.caps) {
					e.Fatalf(setupPrefix + "the broker does not claim Redelivery: what strikes its consumers may lose messages")
				}
				st = newStorm(e, seed, soakLength, soakFaults(e.h.Recovery))
				st.run()
			})
		})
		if calls != 1 {
			t.Errorf("%sWrap called its function %d times, not once", harnessPrefix, calls)
		}
	}()
	s.Failures, s.seconds = append(s.Failures, t.failures...), time.Since(begin).Seconds()
	if st != nil {
		st.figures(&s)
	}
	runtime.GC() // what the schedule has left is what somebody still holds
	s.Goroutines, s.RSS = runtime.NumGoroutine(), int(resident.Bytes()>>20)
	return s
}

// figures puts what the storm knows into its row of the report.
func (st *storm) figures(s *SoakSchedule) {
	s.Faults, s.Reconnects = append(s.Faults, st.struck...), max(0, st.reconnects())
	for _, f := range st.faults[len(st.struck):] { // the schedule ended before
		s.Faults = append(s.Faults, SoakFault{Kind: string(f.Kind), AtMS: f.At.Milliseconds()})
	}
	st.l.mu.Lock()
	defer st.l.mu.Unlock()
	for _, m := range st.l.sent {
		s.Published++
		if errors.Is(m.err, pubsub.ErrUnconfirmed) {
			s.Unknown++
		}
	}
	v := st.l.past.Check(st.l.group(stormGroup).promise)
	s.Confirmed, s.Duplicates, s.DuplicateBound, s.OrderViolations = v.Confirmed, len(v.Again), v.Duplicates, len(v.Breaches)
	if st.whole { // else what has not been handled is still on its way
		s.Lost = len(v.Lost)
	}
	if len(s.Failures) > 0 {
		s.history = st.l.past
	}
}

// keep writes a history beside the reports, and says where.
func (r *SoakReport) keep(s SoakSchedule) string {
	dir, err := ReportDir()
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	file := filepath.Join(dir, fmt.Sprintf("%s-%d.history", reportName("soak", r.Broker, r.Variant), s.Seed))
	if err == nil {
		err = os.WriteFile(file, []byte(s.line()+"\n"+s.history.String()), 0o644)
	}
	if err != nil {
		return err.Error()
	}
	return file
}
