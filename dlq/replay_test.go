package dlq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

func billing() pubsub.Subscription { return pubsub.Subscription{Topic: "orders", Group: "billing"} }

func TestReplayRestoresByteForByteToTheFailingGroupOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		// a layer that changes what is published must not do it again
		b := open(t, s, &pubsub.Options{Use: []pubsub.Middleware{{Name: "mark", Outgoing: func(_ context.Context, _ string, m *pubsub.Message) error {
			m.Headers.Add("marked", "once")
			return nil
		}}}})
		defer b.Close()
		want := kill(t, b, billing(), 500, 7)
		other := billing()
		other.Group = "audit"
		var in, audit inbox
		subscribe(t, b, other, audit.handle)
		subscribe(t, b, billing(), in.handle)
		done := 0
		rep, err := dlq.Open(b, "orders", "billing").Replay(t.Context(), dlq.Filter{}, dlq.Replay{Progress: func(n, total int) {
			if n <= done || n > total || total != 500 {
				t.Errorf("progress goes from %d to %d of %d", done, n, total)
			}
			done = n
		}})
		if err != nil || rep.Replayed != 500 || rep.Total != 500 || rep.Failed != 0 || rep.Skipped != 0 || done != 500 {
			t.Fatalf("%+v, %v, progress %d", rep, err, done)
		}
		settle(t, b, billing())
		seen := map[string]int{}
		last := map[string]string{}
		for _, m := range in.all() {
			seen[m.ID]++
			if m.ID <= last[m.Key] {
				t.Errorf("key %s: %s comes after %s", m.Key, m.ID, last[m.Key])
			}
			last[m.Key] = m.ID
			w := want[m.ID]
			w.Headers = append(slices.Clone(w.Headers), pubsub.Header{Name: "marked", Value: "once"})
			same(t, m, w, "1")
		}
		if len(seen) != 500 || len(in.all()) != 500 {
			t.Errorf("%d messages, %d different ones, want 500", len(in.all()), len(seen))
		}
		if n := len(audit.all()); n != 0 {
			t.Errorf("the other group got %d messages", n)
		}
	})
}

func TestReplayToATopicReachesAllGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		want := kill(t, b, billing(), 20, 3)
		again, other := pubsub.Subscription{Topic: "again", Group: "billing"}, pubsub.Subscription{Topic: "again", Group: "audit"}
		var in, audit inbox
		subscribe(t, b, again, in.handle)
		subscribe(t, b, other, audit.handle)
		rep, err := dlq.Open(b, "orders", "billing").Replay(t.Context(), dlq.Filter{}, dlq.Replay{Topic: "again"})
		if err != nil || rep.Replayed != 20 {
			t.Fatalf("%+v, %v", rep, err)
		}
		settle(t, b, again)
		settle(t, b, other)
		for _, got := range [][]pubsub.Message{in.all(), audit.all()} {
			if len(got) != 20 {
				t.Errorf("a group got %d messages, want 20", len(got))
			}
			for _, m := range got {
				same(t, m, want[m.ID], "1")
			}
		}
	})
}

func TestReplayCancelledAndRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		want := kill(t, b, billing(), 300, 0)
		var in inbox
		subscribe(t, b, billing(), in.handle)
		plan, err := dlq.Open(b, "orders", "billing").Plan(t.Context(), dlq.Filter{}, dlq.Replay{Rate: 10})
		if err != nil {
			t.Fatal(err)
		}
		for i, after := range []time.Duration{3 * time.Second, 7 * time.Second} {
			ctx, stop := context.WithTimeout(t.Context(), after)
			begin := time.Now()
			rep, err := plan.Run(ctx)
			stop()
			if !errors.Is(err, pubsub.ErrCanceled) || rep.Replayed == 0 || rep.Replayed == 300 {
				t.Fatalf("%+v, %v", rep, err)
			}
			if took := time.Since(begin); took-after > time.Second {
				t.Errorf("cancelled, run %d went on for %v", i, took-after)
			}
		}
		rep, err := plan.Run(t.Context())
		if err != nil || rep.Replayed != 300 {
			t.Fatalf("%+v, %v", rep, err)
		}
		if rep, err = plan.Run(t.Context()); err != nil || rep.Replayed != 300 {
			t.Errorf("a plan that is done: %+v, %v", rep, err)
		}
		settle(t, b, billing())
		if got := in.all(); len(got) != 300 || len(want) != 300 {
			t.Errorf("%d messages came, want 300", len(got))
		}
	})
}

func TestRateChangesWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		kill(t, b, billing(), 100, 0)
		var in inbox
		subscribe(t, b, billing(), in.handle)
		plan, err := dlq.Open(b, "orders", "billing").Plan(t.Context(), dlq.Filter{}, dlq.Replay{Rate: 10})
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		at := func(d time.Duration, rate float64) { time.AfterFunc(d, func() { plan.SetRate(rate) }) }
		at(4950*time.Millisecond, 1) // 50 have gone
		at(9950*time.Millisecond, 100)
		if _, err := plan.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		settle(t, b, billing())
		counts := map[int]int{}
		for _, x := range in.times {
			counts[int((x.Sub(begin)+50*time.Millisecond)/(5*time.Second))]++
		}
		if counts[0] != 50 || counts[1] != 5 || counts[2] != 45 { // 10 a second for 5 s, 1 a second for 5 s, then 100
			t.Errorf("messages per five seconds: %v", counts)
		}
		if took := in.times[99].Sub(begin); took < 10300*time.Millisecond || took > 10500*time.Millisecond {
			t.Errorf("the last one came after %v", took)
		}
	})
}

// What fails again while the plan runs is not in it, and the next plan has it once.
func TestSelectionIsFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		kill(t, b, billing(), 40, 5)
		subscribe(t, b, billing(), func(_ context.Context, d *pubsub.Delivery) error {
			if n, _ := strconv.Atoi(d.Headers.Get("a")); n%2 == 0 {
				return pubsub.Permanent(errDeclined)
			}
			return nil
		})
		q := dlq.Open(b, "orders", "billing")
		for round := 1; round <= 3; round++ {
			plan, err := q.Plan(t.Context(), dlq.Filter{Header: map[string]string{"a": "2"}}, dlq.Replay{MaxReplays: 3})
			if err != nil || plan.Count != 1 || len(plan.Sample) != 1 || plan.Sample[0].Replays != round-1 || plan.Skipped.FailedAgain != round-1 {
				t.Fatalf("round %d: %d messages, skipped %+v, %v", round, plan.Count, plan.Skipped, err)
			}
			rep, err := plan.Run(t.Context())
			if err != nil || rep.Replayed != 1 || rep.Skipped != round-1 {
				t.Fatalf("%+v, %v", rep, err)
			}
			settle(t, b, billing())
		}
		plan, err := q.Plan(t.Context(), dlq.Filter{Key: "k-2"}, dlq.Replay{MaxReplays: 3})
		if err != nil || plan.Skipped != (dlq.Skipped{MaxReplays: 1, FailedAgain: 3}) {
			t.Errorf("replayed as often as it may be: %+v, %v", plan.Skipped, err)
		}
		if all := list(t, q, dlq.Filter{}); len(all) != 43 {
			t.Errorf("%d dead letters, want 43: nothing is hidden from a list", len(all))
		}
		rep, err := q.Replay(t.Context(), dlq.Filter{}, dlq.Replay{Rate: 10}) // half of them fail again meanwhile
		if err != nil || rep.Total != 40 || rep.Replayed != 40 {
			t.Errorf("%+v, %v", rep, err)
		}
	})
}

// A broker may answer with what nobody has classified: of one message that is the message's fault, of all of them its own.
func TestUnclassifiedAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		bad      func(n int) bool // by the number of the message
		again    bool             // the same when the plan runs again
		failed   int
		stops    bool
		replayed int // when it stops; -1 = some
	}{
		"one":                 {func(n int) bool { return n == 7 }, true, 1, false, 49},
		"the first":           {func(n int) bool { return n == 0 }, true, 1, false, 49},
		"the last":            {func(n int) bool { return n == 49 }, true, 1, false, 49},
		"some in a row":       {func(n int) bool { return n >= 20 && n < 25 }, true, 5, false, 45},
		"every other":         {func(n int) bool { return n%2 == 1 }, true, 25, false, 25},
		"all":                 {func(int) bool { return true }, false, 0, true, 0},
		"all from one on":     {func(n int) bool { return n >= 30 }, false, 0, true, 30},
		"all but a few, once": {func(n int) bool { return n < 20 }, false, 0, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, b := newProcess(t, memory.NewServer(memory.Config{}))
				defer b.Close()
				kill(t, b, billing(), 50, 0)
				well := false
				p.out = func(o *pubsub.Out) error {
					if n, _ := strconv.Atoi(o.Msg.Headers.Get("a")); !well && c.bad(n) {
						return &pubsub.Error{Code: pubsub.ErrBroker}
					}
					return nil
				}
				plan, err := dlq.Open(b, "orders", "billing").Plan(t.Context(), dlq.Filter{}, dlq.Replay{Rate: 1000})
				if err != nil {
					t.Fatal(err)
				}
				rep, err := plan.Run(t.Context())
				if c.stops != errors.Is(err, pubsub.ErrBroker) || !c.stops && err != nil || rep.Failed != c.failed || rep.Replayed != c.replayed {
					t.Errorf("%d replayed, %d failed, %v", rep.Replayed, rep.Failed, err)
				}
				for _, f := range rep.Failures {
					if !errors.Is(f.Err, pubsub.ErrBroker) {
						t.Errorf("%s failed with %v", f.ID, f.Err)
					}
				}
				well = !c.again
				if rep, err = plan.Run(t.Context()); err != nil || rep.Replayed+rep.Failed != 50 || rep.Failed != c.failed {
					t.Errorf("run again: %d replayed, %d failed, %v", rep.Replayed, rep.Failed, err)
				}
			})
		})
	}
}

// What the broker goes on refusing for no known reason holds up nothing but itself, however many Runs it takes and whatever ended them.
func TestUnclassifiedAnswersHoldNothingUp(t *testing.T) {
	for name, c := range map[string]struct {
		bad      func(n int) bool
		first    time.Duration // for the first Run; 0 = as long as it takes
		resumed  bool          // behind the first
		runs     int           // that end in ErrBroker, at most
		replayed int
		failed   int
	}{
		"the last, cancelled":     {func(n int) bool { return n == 199 }, 1985 * time.Millisecond, false, 0, 199, 1},
		"the last, resumed":       {func(n int) bool { return n == 199 }, 1985 * time.Millisecond, true, 0, 199, 1},
		"ten in a row":            {func(n int) bool { return n >= 20 && n < 30 }, 0, false, 1, 190, 10},
		"ten in a row, twice":     {func(n int) bool { return n >= 20 && n < 30 || n >= 100 && n < 115 }, 0, false, 2, 175, 25},
		"a hundred in a row":      {func(n int) bool { return n >= 20 && n < 120 }, 0, false, 4, 100, 100},
		"the first nine, resumed": {func(n int) bool { return n < 9 }, 500 * time.Millisecond, true, 0, 191, 9},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, b := newProcess(t, memory.NewServer(memory.Config{}))
				defer b.Close()
				kill(t, b, billing(), 200, 0)
				p.out = func(o *pubsub.Out) error {
					if n, _ := strconv.Atoi(o.Msg.Headers.Get("a")); c.bad(n) {
						return &pubsub.Error{Code: pubsub.ErrBroker}
					}
					return nil
				}
				q, j := dlq.Open(b, "orders", "billing"), &journal{}
				plan, err := q.Plan(t.Context(), dlq.Filter{}, dlq.Replay{Rate: 100, Journal: j})
				if err != nil {
					t.Fatal(err)
				}
				if c.first > 0 {
					ctx, stop := context.WithTimeout(t.Context(), c.first)
					defer stop()
					if rep, err := plan.Run(ctx); !errors.Is(err, pubsub.ErrCanceled) {
						t.Fatalf("%+v, %v", rep, err)
					}
				}
				if c.resumed {
					if plan, err = q.Resume(t.Context(), bytes.NewReader(j.data), dlq.Replay{Rate: 100}); err != nil {
						t.Fatal(err)
					}
				}
				var rep dlq.Report
				runs := -1
				for err = pubsub.ErrBroker; errors.Is(err, pubsub.ErrBroker) && runs < 10; runs++ {
					rep, err = plan.Run(t.Context())
				}
				if err != nil || runs > c.runs || rep.Replayed != c.replayed || rep.Failed != c.failed {
					t.Errorf("%d replayed, %d failed, %d times ErrBroker, then %v", rep.Replayed, rep.Failed, runs, err)
				}
			})
		})
	}
}

// A broker that has taken messages of a plan and then takes no more, for whatever reason, ends each Run, and no message is blamed for it.
func TestUnclassifiedAnswersOfABrokenBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b := newProcess(t, memory.NewServer(memory.Config{}))
		defer b.Close()
		kill(t, b, billing(), 50, 0)
		broken := true
		p.out = func(o *pubsub.Out) error {
			if n, _ := strconv.Atoi(o.Msg.Headers.Get("a")); broken && n >= 30 {
				return &pubsub.Error{Code: pubsub.ErrBroker}
			}
			return nil
		}
		plan, err := dlq.Open(b, "orders", "billing").Plan(t.Context(), dlq.Filter{}, dlq.Replay{Rate: 100})
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			if rep, err := plan.Run(t.Context()); !errors.Is(err, pubsub.ErrBroker) || rep.Replayed != 30 || rep.Failed != 0 {
				t.Fatalf("%+v, %v", rep, err)
			}
		}
		broken = false
		if rep, err := plan.Run(t.Context()); err != nil || rep.Replayed != 50 {
			t.Errorf("once it is well: %+v, %v", rep, err)
		}
	})
}

func TestOneUnsendableMessageDoesNotStopTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		p, b := newProcess(t, s)
		defer b.Close()
		kill(t, b, billing(), 50, 3)
		p.out = func(o *pubsub.Out) error {
			if o.Msg.ID == "m-00007" || o.Msg.ID == "m-00031" {
				return &pubsub.Error{Code: pubsub.ErrTooLarge}
			}
			return nil
		}
		var in inbox
		subscribe(t, b, billing(), in.handle)
		q := dlq.Open(b, "orders", "billing")
		j := &journal{}
		rep, err := q.Replay(t.Context(), dlq.Filter{}, dlq.Replay{Journal: j})
		if err != nil || rep.Replayed != 48 || rep.Failed != 2 || len(rep.Failures) != 2 {
			t.Fatalf("%+v, %v", rep, err)
		}
		_, read := j.next(nil)
		plan, err := q.Resume(t.Context(), read, dlq.Replay{})
		if err != nil {
			t.Fatal(err)
		}
		again, err := plan.Run(t.Context())
		if err != nil || again.Failed != 2 || !errors.Is(again.Failures[0].Err, pubsub.ErrTooLarge) {
			t.Errorf("from the journal: %+v, %v", again, err)
		}
		p.out = nil
		var ids []string
		for _, f := range rep.Failures {
			if !errors.Is(f.Err, pubsub.ErrTooLarge) {
				t.Errorf("%s failed with %v", f.ID, f.Err)
			}
			ids = append(ids, f.ID)
		}
		if rep, err = q.Replay(t.Context(), dlq.Filter{IDs: ids}, dlq.Replay{}); err != nil || rep.Replayed != 2 {
			t.Errorf("%+v, %v", rep, err)
		}
		settle(t, b, billing())
		if n := len(in.all()); n != 50 {
			t.Errorf("%d messages came, want 50", n)
		}
	})
}

// What nobody has classified says nothing about the message: it stays in the plan.
func TestUnknownErrorStopsThePlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b := newProcess(t, memory.NewServer(memory.Config{}))
		defer b.Close()
		kill(t, b, billing(), 5, 0)
		p.out = func(*pubsub.Out) error { return &pubsub.Error{Code: pubsub.ErrBroker} }
		plan, err := dlq.Open(b, "orders", "billing").Plan(t.Context(), dlq.Filter{}, dlq.Replay{})
		if err != nil {
			t.Fatal(err)
		}
		if rep, err := plan.Run(t.Context()); !errors.Is(err, pubsub.ErrBroker) || rep.Failed != 0 {
			t.Errorf("%+v, %v", rep, err)
		}
		p.mu.Lock()
		p.out = nil
		p.mu.Unlock()
		if rep, err := plan.Run(t.Context()); err != nil || rep.Replayed != 5 {
			t.Errorf("%+v, %v", rep, err)
		}
	})
}

// A broker that is away for longer than the publish deadline stops the plan; it goes on later, and keys stay in order.
func TestOutageStopsAndGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		b := open(t, s, nil)
		defer b.Close()
		kill(t, b, billing(), 200, 4)
		var in inbox
		subscribe(t, b, billing(), in.handle)
		again := false
		plan, err := dlq.Open(b, "orders", "billing").Plan(t.Context(), dlq.Filter{}, dlq.Replay{Rate: 100, Progress: func(int, int) {
			if again {
				again = false
				s.Refuse(30, pubsub.ErrUnavailable) // refused for a while: what comes behind must not overtake
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, s.Crash)
		rep, err := plan.Run(t.Context())
		if err == nil || rep.Replayed == 0 || rep.Replayed > 110 || rep.Failed > 0 {
			t.Fatalf("the broker is away: %+v, %v", rep, err)
		}
		s.Restart()
		again = true
		if rep, err = plan.Run(t.Context()); err != nil || rep.Replayed != 200 {
			t.Fatalf("%+v, %v", rep, err)
		}
		settle(t, b, billing())
		last, came := map[string]string{}, map[string]bool{}
		for _, m := range in.all() {
			came[m.ID] = true
			if m.ID < last[m.Key] {
				t.Errorf("key %s: %s comes after %s", m.Key, m.ID, last[m.Key])
			}
			last[m.Key] = m.ID
		}
		if len(came) != 200 { // what was handled when the broker crashed, and not settled, comes again
			t.Errorf("%d messages came, want 200", len(came))
		}
	})
}

func TestOnePlanOfAQueueRunsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		kill(t, b, billing(), 20, 0)
		q := dlq.Open(b, "orders", "billing")
		plan, err := q.Plan(t.Context(), dlq.Filter{}, dlq.Replay{Rate: 1})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error)
		go func() { _, err := plan.Run(t.Context()); ended <- err }()
		pause(t, time.Second)
		if _, err := q.Replay(t.Context(), dlq.Filter{}, dlq.Replay{}); !errors.Is(err, pubsub.ErrConflict) {
			t.Errorf("another plan: %v", err)
		}
		if _, err := plan.Run(t.Context()); !errors.Is(err, pubsub.ErrConflict) {
			t.Errorf("the same plan: %v", err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if _, err := q.Replay(t.Context(), dlq.Filter{Key: "none"}, dlq.Replay{}); err != nil {
			t.Errorf("after it: %v", err)
		}
	})
}

// What the broker dropped after the plan was made is reported, not passed over.
func TestGoneMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "dead", Retention: time.Hour}}}); err != nil {
			t.Fatal(err)
		}
		sub := billing()
		sub.DeadLetter.Topic = "dead"
		kill(t, b, sub, 5, 0)
		pause(t, 45*time.Minute)
		killThese(t, b, sub, pubsub.Message{ID: "late"})
		q := dlq.OpenTopic(b, "dead")
		plan, err := q.Plan(t.Context(), dlq.Filter{}, dlq.Replay{})
		if err != nil || plan.Count != 6 {
			t.Fatal(plan, err)
		}
		pause(t, 30*time.Minute)
		rep, err := plan.Run(t.Context())
		if err != nil || rep.Replayed != 1 || rep.Failed != 5 || !errors.Is(rep.Failures[0].Err, pubsub.ErrNotFound) {
			t.Errorf("%+v, %v", rep, err)
		}
	})
}

// A position names one partition, and of the others a browse may show too little: what it does not show is looked for from the beginning.
func TestNothingIsGoneThatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b := newProcess(t, memory.NewServer(memory.Config{}))
		defer b.Close()
		kill(t, b, billing(), 600, 0)
		p.hides = true
		rep, err := dlq.Open(b, "orders", "billing").Replay(t.Context(), dlq.Filter{}, dlq.Replay{})
		if err != nil || rep.Replayed != 600 {
			t.Errorf("%d replayed, %d failed, %v", rep.Replayed, rep.Failed, err)
		}
	})
}

// Another plan is another replay, however soon it comes: what it says it sent must not be taken for a duplicate of the first one's.
func TestAnotherPlanSendsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		kill(t, b, billing(), 10, 2)
		var in inbox
		subscribe(t, b, billing(), in.handle)
		for range 2 {
			whatever := dlq.Filter{States: []dlq.State{dlq.StateOpen, dlq.StatePending, dlq.StateResolved}}
			if rep, err := dlq.Open(b, "orders", "billing").Replay(t.Context(), whatever, dlq.Replay{}); err != nil || rep.Replayed != 10 {
				t.Errorf("%+v, %v", rep, err)
			}
		}
		settle(t, b, billing())
		if n := len(in.all()); n != 20 {
			t.Errorf("%d messages came, want 20", n)
		}
	})
}

// On a broker that says no positions, dead letters are known by their IDs, also if two have the same.
func TestWithoutPositions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		p, b := newProcess(t, s)
		defer b.Close()
		kill(t, b, billing(), 300, 3)
		p.stray = func(r *pubsub.Record) { // one of four has no ID, and the others share theirs by two
			r.Pos = pubsub.Position{}
			n, _ := strconv.Atoi(r.Msg.Headers.Get("a"))
			r.Msg.Headers = slices.Clone(r.Msg.Headers)
			r.Msg.Headers.Del("omnibus-dlq-id")
			if n%4 > 0 {
				r.Msg.Headers.Set("omnibus-dlq-id", fmt.Sprint(n/2))
			}
		}
		var in inbox
		subscribe(t, b, billing(), in.handle)
		rep, err := dlq.Open(b, "orders", "billing").Replay(t.Context(), dlq.Filter{}, dlq.Replay{})
		settle(t, b, billing())
		if n := len(in.all()); err != nil || rep.Replayed != 300 || n != 300 {
			t.Errorf("%+v, %v, %d messages came", rep, err, n)
		}
	})
}

func TestReplayRefuses(t *testing.T) {
	b := memory.New(nil)
	q := dlq.Open(b, "orders", "billing")
	for name, o := range map[string]dlq.Replay{
		"rate": {Rate: -1}, "max replays": {MaxReplays: -2}, "pattern": {Topic: "a.*"},
	} {
		if _, err := q.Plan(t.Context(), dlq.Filter{}, o); !errors.Is(err, pubsub.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, q := range map[string]*dlq.Queue{"no group": dlq.Open(b, "orders", ""), "no topic": dlq.OpenTopic(b, "")} {
		if _, err := q.Groups(t.Context(), dlq.Filter{}); !errors.Is(err, pubsub.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.Close()
	if _, err := q.Plan(t.Context(), dlq.Filter{}, dlq.Replay{}); !errors.Is(err, pubsub.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
