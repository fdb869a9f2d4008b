package dlq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A journal is a file that survives its process, with half of the line that was being written when that died.
type journal struct {
	mu   sync.Mutex
	data []byte
	p    *process
	torn bool
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.p != nil && j.p.isDead() {
		if !j.torn {
			j.torn = true
			j.data = append(j.data, b[:len(b)/2]...)
		}
		return len(b), nil
	}
	j.data = append(j.data, b...)
	return len(b), nil
}

// next is the same file in the next process.
func (j *journal) next(p *process) (*journal, *bytes.Reader) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return &journal{data: slices.Clone(j.data), p: p}, bytes.NewReader(slices.Clone(j.data))
}

// Killed at three seeded points, and run again from what the journal has: every dead letter arrives, byte for byte.
func TestReplayKilledAndResumed(t *testing.T) {
	for seed, n := range map[uint64]int{1: 2_000, 2: 10_000} {
		dedup := seed == 2 // the other broker knows no tokens
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 0))
				s := memory.NewServer(memory.Config{})
				b := open(t, s, nil)
				defer b.Close()
				want := kill(t, b, billing(), n, 300)
				var in inbox
				sub := billing()
				sub.Concurrency = 4
				subscribe(t, b, sub, in.handle)

				j := &journal{}
				var rep dlq.Report
				for life := range 4 {
					p, victim := newProcess(t, s)
					if !dedup {
						p.out = func(o *pubsub.Out) error { o.Dedup = pubsub.Dedup{}; return nil }
					}
					ctx, stop := context.WithCancel(t.Context())
					if p.died = stop; life < 3 {
						p.after = n/20 + rng.IntN(n/4)
					}
					q := dlq.Open(victim, "orders", "billing")
					file, read := j.next(p)
					j = file
					var plan *dlq.Plan
					var err error
					if life == 0 {
						plan, err = q.Plan(ctx, dlq.Filter{}, dlq.Replay{Journal: j})
					} else {
						plan, err = q.Resume(ctx, read, dlq.Replay{Journal: j})
					}
					if err != nil {
						t.Fatal(err)
					}
					begin := time.Now()
					rep, err = plan.Run(ctx)
					if dead := life < 3; dead != (err != nil) || dead != p.isDead() {
						t.Fatalf("life %d: %v", life, err)
					}
					if d := time.Since(begin); d > time.Second && err != nil {
						t.Errorf("life %d ended after %v", life, d)
					}
					stop()
					victim.Close()
				}
				settle(t, b, sub)
				if rep.Total != n || rep.Replayed != n || rep.Failed != 0 {
					t.Errorf("%+v", rep)
				}
				got := in.all()
				seen := map[string]bool{}
				for _, m := range got {
					if !seen[m.ID] { // the second of two comes byte for byte, too, but one look is enough
						same(t, m, want[m.ID], "1")
					}
					seen[m.ID] = true
				}
				if len(seen) != n {
					t.Errorf("%d of %d messages came", len(seen), n)
				}
				duplicates := len(got) - len(seen)
				if dedup && duplicates > 0 || duplicates > 3*256 || !dedup && duplicates == 0 {
					t.Errorf("%d duplicates after 3 kills", duplicates)
				}
			})
		})
	}
}

func TestResumeRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		kill(t, b, billing(), 3, 0)
		q := dlq.Open(b, "orders", "billing")
		j := &journal{}
		if _, err := q.Replay(t.Context(), dlq.Filter{}, dlq.Replay{Journal: j}); err != nil {
			t.Fatal(err)
		}
		whole := string(j.data)
		first, _, _ := strings.Cut(strings.TrimSpace(whole), "\n")
		other := &journal{}
		if _, err := q.Replay(t.Context(), dlq.Filter{IDs: []string{"none"}}, dlq.Replay{Journal: other}); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			q    *dlq.Queue
			text string
			o    dlq.Replay
			want pubsub.Code
			left int // to be sent
		}{
			"whole":             {q, whole, dlq.Replay{}, 0, 0},
			"plan only":         {q, first + "\n", dlq.Replay{}, 0, 3},
			"torn fates":        {q, first + "\n{\"done\":[0,1\n\n{\"done\":[2,99,-1]}\n{\"do", dlq.Replay{}, 0, 2},
			"empty":             {q, "", dlq.Replay{}, pubsub.ErrInvalid, 0},
			"torn plan":         {q, first[:40], dlq.Replay{}, pubsub.ErrInvalid, 0},
			"no end":            {q, first, dlq.Replay{}, pubsub.ErrInvalid, 0},
			"behind a torn":     {q, first[:40] + "\n{\"done\":[0]}\n" + first + "\n", dlq.Replay{}, 0, 3},
			"plan twice":        {q, first + "\n{\"done\":[0]}\n" + first + "\n", dlq.Replay{}, 0, 2},
			"another plan":      {q, whole + string(other.data) + "{\"done\":[0]}\n", dlq.Replay{}, pubsub.ErrConflict, 0},
			"behind torn fates": {q, first + "\n{\"do" + string(other.data), dlq.Replay{}, pubsub.ErrConflict, 0},
			"no plan":           {q, "{}\n", dlq.Replay{}, pubsub.ErrInvalid, 0},
			"other group":       {dlq.Open(b, "orders", "audit"), whole, dlq.Replay{}, pubsub.ErrConflict, 0},
			"other place":       {dlq.OpenTopic(b, "orders"), whole, dlq.Replay{}, pubsub.ErrConflict, 0},
			"other target":      {q, whole, dlq.Replay{Topic: "t"}, pubsub.ErrConflict, 0},
			"wrong options":     {q, whole, dlq.Replay{Rate: -1}, pubsub.ErrInvalid, 0},
		} {
			plan, err := c.q.Resume(t.Context(), strings.NewReader(c.text), c.o)
			if pubsub.CodeOf(err) != c.want {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
			if err != nil || c.want != 0 {
				continue
			}
			before := len(list(t, q, dlq.Filter{}))
			sent := 0
			if rep, err := plan.Run(t.Context()); err != nil || rep.Replayed != 3 || before != 3 {
				t.Errorf("%s: %+v, %v", name, rep, err)
			}
			for _, err := range b.Browse(t.Context(), pubsub.Place{Topic: "orders", Group: "billing", Kind: pubsub.PlaceRetry}, pubsub.Position{}) {
				if err != nil {
					t.Fatal(err)
				}
				sent++
			}
			if sent != 3 { // with the tokens of the first time: nothing came twice
				t.Errorf("%s: the group has %d messages, want 3", name, sent)
			}
		}
	})
}

func TestJournalThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		kill(t, b, billing(), 30, 0)
		q := dlq.Open(b, "orders", "billing")
		errFull := errors.New("disk full")
		for _, good := range []int{0, 1} {
			writes := 0
			rep, err := q.Replay(t.Context(), dlq.Filter{}, dlq.Replay{Rate: 10, Journal: writer(func([]byte) error {
				if writes++; writes > good {
					return errFull
				}
				return nil
			})})
			if !errors.Is(err, errFull) || rep.Replayed > 3 || good == 0 && rep.Replayed > 0 {
				t.Errorf("%d good writes: %+v, %v", good, rep, err)
			}
		}
	})
}

// A plan that was written by half, and then whole by the next Run.
func TestJournalWithATornPlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		kill(t, b, billing(), 3, 0)
		q := dlq.Open(b, "orders", "billing")
		var data []byte
		plan, err := q.Plan(t.Context(), dlq.Filter{}, dlq.Replay{Journal: writer(func(line []byte) error {
			if data == nil {
				data = append(data, line[:len(line)/2]...)
				return errors.New("disk full")
			}
			data = append(data, line...)
			return nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		if rep, err := plan.Run(t.Context()); err == nil || rep.Replayed > 0 {
			t.Fatalf("%+v, %v", rep, err)
		}
		if rep, err := plan.Run(t.Context()); err != nil || rep.Replayed != 3 {
			t.Fatalf("%+v, %v", rep, err)
		}
		again, err := q.Resume(t.Context(), bytes.NewReader(data), dlq.Replay{})
		if err != nil {
			t.Fatal(err)
		}
		if rep, err := again.Run(t.Context()); err != nil || again.ID != plan.ID || rep.Replayed != 3 {
			t.Errorf("%+v, %v", rep, err)
		}
	})
}

type writer func([]byte) error

func (w writer) Write(b []byte) (int, error) { return len(b), w(b) }
