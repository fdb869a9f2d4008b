package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A storm has members that come and go, sessions that end, handlers and looks that fail, and somebody who replays and discards, all of it at random.
type storm struct {
	t   *testing.T
	s   *memory.Server
	rng *rand.Rand
	sub pubsub.Subscription
	ops *pubsub.Broker

	forgets bool // the broker knows no message again
	slow    bool // looks take a while, and some fail

	mu        sync.Mutex
	fails     float64
	members   []*pubsub.Broker
	sent      map[string][]string // by key
	handled   []string            // each where it came first
	known     map[string]bool
	discarded map[string]bool
}

func (x *storm) handle(_ context.Context, d *pubsub.Delivery) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.rng.Float64() < x.fails {
		return pubsub.Permanent(errors.New("no"))
	}
	if !x.known[d.ID] {
		x.known[d.ID] = true
		x.handled = append(x.handled, d.ID)
	}
	return nil
}

func (x *storm) chance(n int) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.rng.IntN(n)
}

func (x *storm) join() {
	d := x.s.Driver().(full)
	if x.forgets {
		d = forgetful{d}
	}
	if x.slow {
		d = looked{d, x.look}
	}
	b, err := pubsub.New(x.t.Context(), d, nil)
	if err != nil {
		x.t.Fatal(err)
	}
	_, err = b.Subscribe(x.t.Context(), x.sub, x.handle)
	for x.slow && err != nil {
		_, err = b.Subscribe(x.t.Context(), x.sub, x.handle)
	}
	if err != nil {
		x.t.Fatal(err)
	}
	x.members = append(x.members, b)
}

func (x *storm) look(pubsub.Place) error {
	time.Sleep(time.Duration(x.chance(300)) * time.Millisecond)
	if x.chance(12) == 0 {
		return context.DeadlineExceeded
	}
	return nil
}

func (x *storm) leave() {
	i := x.chance(len(x.members))
	if err := x.members[i].Close(); err != nil {
		x.t.Log(err) // its session may have ended just now
	}
	x.members = slices.Delete(x.members, i, i+1)
}

func (x *storm) publish() {
	for range 1 + x.chance(8) {
		key := string(rune('a' + x.chance(4)))
		id := fmt.Sprintf("%s%d", key, len(x.sent[key]))
		x.sent[key] = append(x.sent[key], id)
		if err := x.ops.Publish(x.t.Context(), "t", pubsub.Message{ID: id, Key: key}); err != nil {
			x.t.Fatal(err)
		}
	}
}

func (x *storm) queue() *dlq.Queue { return dlq.Open(x.ops, "t", "g") }

func (x *storm) replay() {
	if rep, err := x.queue().Replay(x.t.Context(), dlq.Filter{}, dlq.Replay{MaxReplays: pubsub.Unlimited}); err != nil || rep.Failed > 0 {
		x.t.Fatal(rep, err)
	}
}

// discard takes one that is open, and all other dead letters of its message.
func (x *storm) discard() {
	var open []string
	for r, err := range x.queue().List(x.t.Context(), dlq.Filter{States: []dlq.State{dlq.StateOpen}}) {
		if err != nil {
			x.t.Fatal(err)
		}
		open = append(open, r.Message.ID)
	}
	if len(open) == 0 {
		return
	}
	id := open[x.chance(len(open))]
	x.discarded[id] = true
	if _, err := x.queue().Discard(x.t.Context(), dlq.Filter{Where: func(r *dlq.Record) bool { return r.Message.ID == id }}, dlq.Note{}); err != nil {
		x.t.Fatal(err)
	}
}

// end heals all, replays until nothing is open, and judges: nothing is lost, and of each key each message came after those before it.
func (x *storm) end() {
	x.t.Helper()
	x.mu.Lock()
	x.fails = 0
	x.mu.Unlock()
	left := []string{"?"}
	for range 20 {
		settled(x.t, x.ops)
		time.Sleep(3 * time.Second)
		left = nil
		for r := range x.queue().List(x.t.Context(), dlq.Filter{States: []dlq.State{dlq.StateOpen, dlq.StatePending}}) {
			left = append(left, fmt.Sprint(r.Message.ID, " ", r.State))
		}
		if len(left) == 0 {
			break
		}
		x.replay()
	}
	if len(left) > 0 {
		x.t.Errorf("are still open: %v", left)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, sent := range x.sent {
		last := -1
		for i, id := range sent {
			at := slices.Index(x.handled, id)
			switch {
			case x.discarded[id]:
			case at < 0:
				x.t.Errorf("%s is lost", id)
			case at < last:
				x.t.Errorf("%s was handled before one of those that were published earlier: %v", id, sent[:i])
			default:
				last = at
			}
		}
	}
}

// forgetful is a broker that stores what is sent again once more.
type forgetful struct{ full }

func (f forgetful) Capabilities() pubsub.Capabilities {
	c := f.full.Capabilities()
	c.Dedup = 0
	return c
}

// Whatever happens, no message of a key is handled before an earlier one that is neither handled nor discarded.
func TestBlockedKeysInAStorm(t *testing.T) {
	for seed := range uint64(16) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := memory.NewServer(memory.Config{})
				x := &storm{
					t: t, s: s, rng: rand.New(rand.NewPCG(seed, 0)), sub: blocking(), ops: open(t, s), fails: 0.2, forgets: seed%2 == 1, slow: seed%4 > 1,
					sent: map[string][]string{}, known: map[string]bool{}, discarded: map[string]bool{},
				}
				topology := pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "t", Partitions: 2}}, Groups: []pubsub.Subscription{x.sub}}
				if err := x.ops.Ensure(t.Context(), topology); err != nil {
					t.Fatal(err)
				}
				x.join()
				for range 60 {
					switch x.chance(10) {
					case 0:
						if len(x.members) < 3 {
							x.join()
						}
					case 1:
						if x.leave(); len(x.members) == 0 {
							x.publish()
							x.join()
						}
					case 2:
						s.DropSessions()
					case 3:
						s.LoseConfirmations(1)
					case 4:
						x.replay()
					case 5:
						x.discard()
					case 6:
						time.Sleep(time.Duration(x.chance(3000)) * time.Millisecond)
					default:
						x.publish()
					}
					time.Sleep(time.Duration(x.chance(20)) * time.Millisecond)
				}
				x.end()
				for _, b := range append(x.members, x.ops) {
					if err := b.Close(); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}
