package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A looked driver asks before anything is browsed.
type looked struct {
	full
	before func(p pubsub.Place) error
}

func (d looked) Browse(ctx context.Context, p pubsub.Place, from pubsub.Position) iter.Seq2[pubsub.Record, error] {
	return func(yield func(pubsub.Record, error) bool) {
		if err := d.before(p); err != nil {
			yield(pubsub.Record{}, err)
			return
		}
		d.full.Browse(ctx, p, from)(yield)
	}
}

func openLooked(t *testing.T, s *memory.Server, before func(p pubsub.Place) error) *pubsub.Broker {
	t.Helper()
	return openOn(t, looked{s.Driver().(full), before})
}

// In the quarantine a suspect came behind its followers, which were handled meanwhile.
func TestSuspectOfAnOpenKeyKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		d := &closed{full: s.Driver().(full)}
		b := openOn(t, d)
		defer b.Close()
		d.suspects.Store(true)
		k := newKeeper(t, s, b, blocking())
		k.send("a1", "a2", "a3", "b1")
		k.want("a", "a1")
		k.want("b", "b1")
		k.wantDead("a", "a2 process-killer open, a3 key-blocked open")
		d.suspects.Store(false)
		k.replay(dlq.Filter{})
		k.send("a4")
		k.want("a", "a2 a3 a4")
	})
}

// Sessions that ended because nobody could look counted as deliveries of what they had received, until that was suspected of killing processes.
func TestFailedLooksCountNoDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		var deny atomic.Bool
		looks := 0
		b := openLooked(t, s, func(p pubsub.Place) error {
			if looks++; deny.Load() && looks%3 == 0 { // who opens a session may look, and who receives may not
				return context.DeadlineExceeded
			}
			return nil
		})
		defer b.Close()
		k := newKeeper(t, s, b, blocking())
		deny.Store(true)
		s.DropSessions()
		for _, id := range []string{"a1", "a2", "a3"} {
			if err := b.Publish(t.Context(), "t", pubsub.Message{ID: id, Key: "a"}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Minute)
		k.want("a", "")
		deny.Store(false)
		settled(t, b)
		k.want("a", "a1 a2 a3")
		k.wantDead("a", "")
	})
}

// A look that failed while room was found counted as done, and the lane it was for got its messages with nobody knowing of its dead letters.
func TestFailedLookWhileRoomIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		sub := blocking()
		sub.MaxInFlight, sub.Concurrency = 1, 1
		ops := open(t, s)
		defer ops.Close()
		if err := ops.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "t", Partitions: 2}}, Groups: []pubsub.Subscription{sub}}); err != nil {
			t.Fatal(err)
		}
		var stalls atomic.Bool
		looking, freed := make(chan struct{}), make(chan struct{})
		b := openLooked(t, s, func(pubsub.Place) error {
			if !stalls.CompareAndSwap(true, false) {
				return nil
			}
			close(looking)
			<-freed
			time.Sleep(time.Second) // its feed has found room
			return context.DeadlineExceeded
		})
		defer b.Close()
		var mu sync.Mutex
		var got, others []string
		handler := func(to *[]string) pubsub.Handler {
			return func(_ context.Context, d *pubsub.Delivery) error {
				mu.Lock()
				*to = append(*to, d.ID)
				mu.Unlock()
				switch d.Type {
				case "holds":
					<-looking
					close(freed)
				case "fails":
					return pubsub.Permanent(errors.New("no"))
				}
				return nil
			}
		}
		if _, err := b.Subscribe(t.Context(), sub, handler(&got)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		other := open(t, s)
		defer other.Close()
		if _, err := other.Subscribe(t.Context(), sub, handler(&others)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		send := func(id, key, kind string) {
			if err := ops.Publish(t.Context(), "t", pubsub.Message{ID: id, Key: key, Type: kind}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		handled := func(id string) bool {
			mu.Lock()
			defer mu.Unlock()
			return slices.Contains(got, id)
		}
		var mine, theirs string // keys
		for i := 0; mine == "" || theirs == ""; i++ {
			key := fmt.Sprint("k", i)
			if send(key, key, ""); handled(key) {
				mine = key
			} else {
				theirs = key
			}
		}
		send("1", theirs, "fails")
		send("holds", mine, "holds")
		stalls.Store(true)
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		send("2", theirs, "")
		settled(t, ops)
		if handled("2") {
			t.Errorf("2 was handled although 1 is an open dead letter: %v, the other one %v", got, others)
		}
	})
}

// A dead letter whose message comes again, because its ack was lost, is stored twice where the broker knows no duplicates. The second of them came
// behind its followers, and a replay of all did not get to it.
func TestDeadLetterThatIsStoredTwiceKeepsItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		d := &closed{full: s.Driver().(full)}
		b := openOn(t, forgetful{d})
		defer b.Close()
		d.loses.Store(1)
		k := newKeeper(t, s, b, blocking(), "a1")
		k.send("a1")
		k.send("a2", "a3")
		k.want("a", "a1")
		k.wantDead("a", "a1 permanent open, a1 key-blocked open, a2 key-blocked open, a3 key-blocked open")
		k.heal()
		time.Sleep(3 * time.Second) // a look shows both
		k.replay(dlq.Filter{})
		k.want("a", "a1 a1 a2 a3")
		k.wantDead("a", "a1 permanent resolved, a1 key-blocked resolved, a2 key-blocked resolved, a3 key-blocked resolved")
		k.wantBlocked(0)
	})
}

// edit makes another message of the open dead letter of a1.
func (k *keeper) edit(b *pubsub.Broker, to string) {
	k.t.Helper()
	for r, err := range dlq.Open(b, "t", "g").List(k.t.Context(), dlq.Filter{States: []dlq.State{dlq.StateOpen}}) {
		if err != nil {
			k.t.Fatal(err)
		}
		if r.Message.ID != "a1" {
			continue
		}
		change := func(m *pubsub.Message) error { m.ID = to; return nil }
		if _, err := dlq.Open(b, "t", "g").Edit(k.t.Context(), r.ID, dlq.Edit{Allow: true, Change: change}); err != nil {
			k.t.Fatal(err)
		}
	}
}

// A dead letter that had been replayed before it was edited lost its turn, and its followers were handled first.
func TestEditOfWhatWasReplayedKeepsItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, "a1")
		defer func() { k.b.Close() }()
		k.send("a1", "a2")
		k.replay(dlq.Filter{})
		k.want("a", "a1 a1")
		k.edit(k.b, "a0")
		time.Sleep(5 * time.Second)
		k.heal()
		for range 3 {
			k.replay(dlq.Filter{})
			time.Sleep(3 * time.Second)
		}
		k.want("a", "a0 a2")
		k.wantBlocked(0)
	})
}

// A look takes in what became of dead letters after these, or it had seen that one is edited, and not yet into what: the key was open for a moment.
func TestKeyStaysBlockedWhileItsDeadLetterIsEdited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		ops := open(t, s)
		defer ops.Close()
		var edited atomic.Bool
		b := openLooked(t, s, func(p pubsub.Place) error {
			if p.Kind == pubsub.PlaceDead && edited.CompareAndSwap(true, false) {
				if err := ops.Publish(context.Background(), "t", pubsub.Message{ID: "a2", Key: "a"}); err != nil {
					t.Error(err)
				}
				time.Sleep(20 * time.Millisecond)
			}
			return nil
		})
		defer b.Close()
		k := newKeeper(t, s, b, blocking(), "a1")
		k.send("a1")
		k.want("a", "a1")
		k.edit(ops, "a0")
		k.heal()
		edited.Store(true)
		time.Sleep(5 * time.Second)
		k.want("a", "")
		k.wantBlocked(1)
	})
}

// Where nobody may look any more, a key stayed blocked and nothing said why.
func TestLooksThatFailAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		s := memory.NewServer(memory.Config{})
		var deny atomic.Bool
		d := looked{s.Driver().(full), func(pubsub.Place) error {
			if deny.Load() {
				return errors.New("may not read")
			}
			return nil
		}}
		b, err := pubsub.New(t.Context(), d, &pubsub.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		k := newKeeper(t, s, b, blocking(), "a1")
		k.send("a1", "b1")
		deny.Store(true)
		ops := open(t, s)
		defer ops.Close()
		if _, err := dlq.Open(ops, "t", "g").Discard(t.Context(), dlq.Filter{}, dlq.Note{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		k.wantBlocked(1)
		if st := k.c.State(); st.Phase != pubsub.Running || st.Reason == nil || !strings.Contains(st.Reason.Error(), "may not read") {
			t.Errorf("%+v", st)
		}
		deny.Store(false)
		time.Sleep(3 * time.Second)
		k.wantBlocked(0)
		if st := k.c.State(); st.Reason != nil {
			t.Errorf("%+v", st)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		for _, line := range []string{"nobody can look", "somebody can look again"} {
			if n := strings.Count(log.String(), line); n != 1 {
				t.Errorf("%q is logged %d times: %s", line, n, &log)
			}
		}
	})
}

// A Redact that takes the headers of a replay away took its turn, and what it resolves.
func TestBlockKeyAndRedactOfReplays(t *testing.T) {
	for _, name := range []string{"omnibus-replay-of", "omnibus-replays"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := memory.NewServer(memory.Config{})
				b := open(t, s)
				defer b.Close()
				sub := blocking()
				var wrong atomic.Bool
				wrong.Store(true)
				sub.DeadLetter.Redact = func(m *pubsub.Message) {
					if wrong.Load() {
						m.Headers.Del(name)
					}
				}
				k := newKeeper(t, s, b, sub, "a1")
				k.send("a1", "a2")
				k.wantDead("a", "a1 permanent open, a2 key-blocked open") // is no replay
				if rep, err := k.queue().Replay(t.Context(), dlq.Filter{}, dlq.Replay{}); err != nil || rep.Failed > 0 {
					t.Fatal(rep, err)
				}
				time.Sleep(time.Minute)
				if st := k.c.State(); st.Phase != pubsub.Blocked || !strings.Contains(st.Reason.Error(), name) {
					t.Errorf("%+v", st)
				}
				wrong.Store(false)
				settled(t, b)
				k.heal()
				k.want("a", "a1 a1")
				k.replay(dlq.Filter{})
				k.want("a", "a1 a2")
				time.Sleep(3 * time.Second)
				k.wantBlocked(0)
			})
		})
	}
}
