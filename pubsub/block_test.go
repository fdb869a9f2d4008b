package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
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

// A keeper handles what its group gets, and fails what it is told to.
type keeper struct {
	t *testing.T
	s *memory.Server
	b *pubsub.Broker
	c *pubsub.Consumer

	mu    sync.Mutex
	fails []string
	got   []string
}

func blocking() pubsub.Subscription {
	return pubsub.Subscription{Topic: "t", Group: "g", Concurrency: 4, AfterDeadLetter: pubsub.BlockKey}
}

func newKeeper(t *testing.T, s *memory.Server, b *pubsub.Broker, sub pubsub.Subscription, fails ...string) *keeper {
	t.Helper()
	k := &keeper{t: t, s: s, b: b, fails: fails}
	var err error
	if k.c, err = b.Subscribe(t.Context(), sub, k.handle); err != nil {
		t.Fatal(err)
	}
	return k
}

func keep(t *testing.T, fails ...string) *keeper {
	t.Helper()
	s := memory.NewServer(memory.Config{})
	return newKeeper(t, s, open(t, s), blocking(), fails...)
}

func openOn(t *testing.T, d pubsub.Driver) *pubsub.Broker {
	t.Helper()
	b, err := pubsub.New(t.Context(), d, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// again is the same in another process, when this one has ended.
func (k *keeper) again(fails ...string) *keeper {
	k.t.Helper()
	if err := k.b.Close(); err != nil {
		k.t.Fatal(err)
	}
	return newKeeper(k.t, k.s, open(k.t, k.s), blocking(), fails...)
}

func (k *keeper) handle(_ context.Context, d *pubsub.Delivery) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.got = append(k.got, d.ID)
	if slices.Contains(k.fails, d.ID) {
		return pubsub.Permanent(errors.New("no"))
	}
	return nil
}

func (k *keeper) heal() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fails = nil
}

// send publishes messages whose keys are the letters that their IDs begin with, "-" = none, and waits until the group is done with them.
func (k *keeper) send(ids ...string) {
	k.t.Helper()
	for _, id := range ids {
		if err := k.b.Publish(k.t.Context(), "t", pubsub.Message{ID: id, Key: strings.TrimPrefix(id[:1], "-")}); err != nil {
			k.t.Fatal(err)
		}
	}
	settled(k.t, k.b)
}

// want says which messages of a key have come to the handler since it was asked last.
func (k *keeper) want(key, ids string) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	var of []string
	k.got = slices.DeleteFunc(k.got, func(id string) bool {
		if id[:1] == key {
			of = append(of, id)
		}
		return id[:1] == key
	})
	if got := strings.Join(of, " "); got != ids {
		k.t.Errorf("of key %s came %q, want %q", key, got, ids)
	}
}

func (k *keeper) queue() *dlq.Queue { return dlq.Open(k.b, "t", "g") }

// wantDead says which dead letters there are of a key, with their reasons and states.
func (k *keeper) wantDead(key, want string) {
	k.t.Helper()
	var all []string
	for r, err := range k.queue().List(k.t.Context(), dlq.Filter{}) {
		if err != nil {
			k.t.Fatal(err)
		}
		if r.Message.ID[:1] == key {
			all = append(all, fmt.Sprintf("%s %s %s", r.Message.ID, r.Reason, r.State))
		}
	}
	if got := strings.Join(all, ", "); got != want {
		k.t.Errorf("of key %s the dead letters are %s\nwant %s", key, got, want)
	}
}

func (k *keeper) replay(f dlq.Filter) {
	k.t.Helper()
	if rep, err := k.queue().Replay(k.t.Context(), f, dlq.Replay{}); err != nil || rep.Failed > 0 {
		k.t.Fatal(rep, err)
	}
	settled(k.t, k.b)
}

func (k *keeper) discard(f dlq.Filter) {
	k.t.Helper()
	if _, err := k.queue().Discard(k.t.Context(), f, dlq.Note{}); err != nil {
		k.t.Fatal(err)
	}
}

func (k *keeper) wantBlocked(n int) {
	k.t.Helper()
	if got := k.c.State().BlockedKeys; got != n {
		k.t.Errorf("%d keys are blocked, want %d", got, n)
	}
}

func TestBlockedKeyOpens(t *testing.T) {
	for name, free := range map[string]struct {
		do     func(k *keeper)
		within time.Duration
		state  string
	}{
		"discarded":            {func(k *keeper) { k.discard(dlq.Filter{}) }, 3 * time.Second, "discarded"},
		"resolved by a replay": {func(k *keeper) { k.replay(dlq.Filter{}); k.want("a", "a1 a2 a3") }, 0, "resolved"},
		"discarded and replayed all the same": {func(k *keeper) {
			k.discard(dlq.Filter{})
			k.replay(dlq.Filter{States: []dlq.State{dlq.StateDiscarded}})
			k.want("a", "a1 a2 a3")
		}, 3 * time.Second, "discarded"},
		"purged": {func(k *keeper) {
			time.Sleep(3 * time.Second) // a look has shown them
			p, err := k.queue().PlanPurge(k.t.Context(), time.Time{}, dlq.Note{})
			if err == nil {
				err = p.Run(k.t.Context(), p.Count)
			}
			if err != nil {
				k.t.Fatal(err)
			}
		}, 65 * time.Second, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := keep(t, "a1")
				defer func() { k.b.Close() }()
				k.send("a1", "b1", "a2", "-1", "a3", "b2", "-2")
				k.want("a", "a1")
				k.want("b", "b1 b2")
				k.want("-", "-1 -2")
				k.wantDead("a", "a1 permanent open, a2 key-blocked open, a3 key-blocked open")
				k.wantBlocked(1)
				k.heal()
				free.do(k)
				time.Sleep(free.within)
				k.wantBlocked(0)
				k.send("a4", "b3")
				k.want("a", "a4")
				if want := "a1 permanent S, a2 key-blocked S, a3 key-blocked S"; free.state != "" {
					k.wantDead("a", strings.ReplaceAll(want, "S", free.state))
				}
			})
		})
	}
}

// A restart forgets no block, and what a key's followers are replayed from comes before what is published since.
func TestBlockSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, "a1")
		k.send("a1", "a2")
		k = k.again()
		defer func() { k.b.Close() }()
		k.send("a3", "b1")
		k.want("a", "")
		k.want("b", "b1")
		k.wantBlocked(1)
		k.replay(dlq.Filter{})
		k.send("a4")
		k.want("a", "a1 a2 a3 a4")
		k.wantBlocked(0)
		k = k.again()
		k.send("a5")
		k.want("a", "a5")
	})
}

// A replay does not pass an earlier one of its key that is open, nor one that has failed again, and a message that only says that it is a replay passes nothing.
func TestReplaysKeepTheirTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, "a1", "b1")
		defer func() { k.b.Close() }()
		k.send("a1", "b1", "a2", "a3")
		var first dlq.Record
		later := dlq.Filter{Reason: "key-blocked"}
		for r := range k.queue().List(t.Context(), dlq.Filter{}) {
			if r.Message.ID == "a1" {
				first = r
			}
		}
		k.want("a", "a1")
		k.replay(later)
		k.want("a", "")
		k.replay(dlq.Filter{}) // the first fails again
		k.want("a", "a1")
		forged := pubsub.Message{ID: "a9", Key: "a", Headers: pubsub.Headers{{Name: "omnibus-replay-of", Value: first.ID}, {Name: "omnibus-replays", Value: "1"}}}
		other := pubsub.Message{ID: "a1", Key: "b", Headers: forged.Headers}
		for _, m := range []pubsub.Message{forged, other} {
			if err := k.b.DeliverTo(t.Context(), "t", "g", m); err != nil {
				t.Fatal(err)
			}
		}
		settled(t, k.b)
		k.want("a", "")
		k.want("b", "b1 b1")
		for r, err := range k.queue().List(t.Context(), dlq.Filter{}) {
			if err == nil && (r.Message.ID == "a9" || r.Message.Key == "b") {
				k.discard(dlq.Filter{IDs: []string{r.ID}})
			}
		}
		time.Sleep(3 * time.Second)
		k.heal()
		k.send("a4")
		k.want("a", "")
		k.replay(dlq.Filter{})
		k.want("a", "a1 a2 a3 a4")
		time.Sleep(3 * time.Second)
		k.wantBlocked(0)
	})
}

// What is restored, edited or stored by another member counts, with and without a restart.
func TestBlockFollowsWhatOthersDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, "a1", "b1")
		defer func() { k.b.Close() }()
		k.send("a1", "b1")
		all := map[string]string{}
		for r := range k.queue().List(t.Context(), dlq.Filter{}) {
			all[r.Message.ID] = r.ID
		}
		one := dlq.Filter{IDs: []string{all["a1"]}}
		k.discard(one)
		time.Sleep(3 * time.Second)
		k.wantBlocked(1)
		if _, err := k.queue().Restore(t.Context(), one, dlq.Note{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		k.wantBlocked(2)
		k.send("a2", "b2")
		k.want("a", "a1")
		k.want("b", "b1")
		time.Sleep(5 * time.Minute) // all is read anew meanwhile
		k.wantBlocked(2)
		k = k.again()
		k.send("a3")
		k.want("a", "")
		k.wantBlocked(2)
		edit := dlq.Edit{Allow: true, Change: func(m *pubsub.Message) error { m.Payload = []byte("mended"); return nil }}
		if _, err := k.queue().Edit(t.Context(), all["a1"], edit); err != nil { // it lies behind the others, and is in the turn of its original
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		k.wantBlocked(2)
		for range 2 {
			k.replay(dlq.Filter{Key: "a"})
		}
		k.mu.Lock()
		first := k.got[0]
		k.got = k.got[1:]
		k.mu.Unlock()
		if first == "a1" || first == "a2" {
			t.Errorf("the first that came is %s, not the edited one", first)
		}
		k.want("a", "a2 a3")
		k.wantBlocked(1)
	})
}

// All forms of a subscription block keys, and so does one sequence for all.
func TestEachFormBlocksKeys(t *testing.T) {
	for _, order := range []pubsub.Order{pubsub.OrderByKey, pubsub.OrderStrict} {
		for name, consume := range map[string]func(ctx context.Context, k *keeper, sub pubsub.Subscription) error{
			"batches": func(ctx context.Context, k *keeper, sub pubsub.Subscription) error {
				_, err := k.b.SubscribeBatch(ctx, sub, pubsub.Batch{Max: 7, Wait: time.Second}, func(ctx context.Context, ds []*pubsub.Delivery) error {
					errs := make([]error, len(ds))
					for i, d := range ds {
						errs[i] = k.handle(ctx, d)
					}
					return &pubsub.BatchError{Errs: errs}
				})
				return err
			},
			"pull": func(ctx context.Context, k *keeper, sub pubsub.Subscription) error {
				seq, err := k.b.Receive(ctx, sub)
				go func() {
					for l, err := range seq {
						if err == nil {
							_ = l.Settle(ctx, k.handle(ctx, l.Delivery))
						}
					}
				}()
				return err
			},
		} {
			t.Run(fmt.Sprint(order, "/", name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := memory.NewServer(memory.Config{})
					k := &keeper{t: t, s: s, b: open(t, s), fails: []string{"a2"}}
					defer k.b.Close()
					ctx, stop := context.WithCancel(t.Context())
					defer stop()
					sub := blocking()
					sub.Order = order
					if err := consume(ctx, k, sub); err != nil {
						t.Fatal(err)
					}
					k.send("a1", "a2", "a3", "b1", "a4", "b2")
					k.want("a", "a1 a2")
					k.want("b", "b1 b2")
					k.wantDead("a", "a2 permanent open, a3 key-blocked open, a4 key-blocked open")
					k.heal()
					k.replay(dlq.Filter{})
					k.send("a5")
					k.want("a", "a2 a3 a4 a5")
				})
			})
		}
	}
}

// While dead letters cannot be stored, what follows waits, and goes there in order when they can.
func TestBlockedKeyWhileDeadLettersAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		d := &closed{full: s.Driver().(full)}
		b := openOn(t, d)
		k := newKeeper(t, s, b, blocking(), "a1")
		defer b.Close()
		d.refuses.Store(true)
		for _, id := range []string{"a1", "a2", "b1", "a3"} {
			if err := b.Publish(t.Context(), "t", pubsub.Message{ID: id, Key: id[:1]}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		k.want("b", "b1")
		k.wantDead("a", "")
		if st := k.c.State(); st.Phase != pubsub.Blocked || st.BlockedKeys != 0 {
			t.Errorf("%+v", st)
		}
		d.refuses.Store(false)
		settled(t, b)
		k.want("a", "a1")
		k.wantDead("a", "a1 permanent open, a2 key-blocked open, a3 key-blocked open")
	})
}

// A session that ends between a dead letter and the ack of its message brings the message again: it follows its own dead letter, and neither overtakes.
func TestBlockedKeyWhenTheAckIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		d := &closed{full: s.Driver().(full)}
		b := openOn(t, d)
		k := newKeeper(t, s, b, blocking(), "a1")
		defer b.Close()
		d.loses.Store(1)
		k.send("a1", "a2", "a3", "b1")
		k.want("a", "a1")
		k.wantDead("a", "a1 permanent open, a2 key-blocked open, a3 key-blocked open") // memory deduplicates
		k.discard(dlq.Filter{})
		time.Sleep(61 * time.Second)
		k.wantBlocked(0)
		k.send("a4")
		k.want("a", "a4")
	})
}

// No message is handled before the dead letters are read, however long they cannot be; and who may not read them is refused.
func TestBlocksAreReadBeforeTheFirstMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, "a1")
		k.send("a1")
		if err := k.b.Close(); err != nil {
			t.Fatal(err)
		}
		d := &closed{full: k.s.Driver().(full)}
		b := openOn(t, d)
		defer b.Close()
		d.blind.Store(true)
		if _, err := b.Subscribe(t.Context(), blocking(), k.handle); !errors.Is(err, pubsub.ErrUnavailable) {
			t.Errorf("Subscribe without a look at the dead letters: %v", err)
		}
		d.blind.Store(false)
		d.after.Store(2)
		k = newKeeper(t, k.s, b, blocking())
		for _, id := range []string{"a2", "b1"} {
			if err := b.Publish(t.Context(), "t", pubsub.Message{ID: id, Key: id[:1]}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		k.want("a", "")
		k.want("b", "")
		d.after.Store(0)
		d.blind.Store(false)
		settled(t, b)
		k.want("a", "")
		k.want("b", "b1")
		k.wantDead("a", "a1 permanent open, a2 key-blocked open")
	})
}

// A drain ends also while the dead letters are being read, and hands back what nobody has looked at.
func TestDrainWhileBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, "a1")
		k.send("a1", "a2")
		d := &closed{full: k.s.Driver().(full)}
		b := openOn(t, d)
		defer b.Close()
		k.wantBlocked(1)
		if err := k.c.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		d.after.Store(2)
		d.hangs.Store(true)
		if err := b.Publish(t.Context(), "t", pubsub.Message{ID: "a3", Key: "a"}); err != nil {
			t.Fatal(err)
		}
		next := newKeeper(t, k.s, b, blocking())
		time.Sleep(10 * time.Second)
		if err := next.c.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		next.want("a", "")
		k = k.again()
		defer func() { k.b.Close() }()
		settled(t, k.b)
		k.want("a", "")
		k.wantDead("a", "a1 permanent open, a2 key-blocked open, a3 key-blocked open")
	})
}

func TestBlockKeyIsRefusedWhereItMeansNothing(t *testing.T) {
	b := memory.New(nil)
	defer b.Close()
	for want, edit := range map[string]func(s *pubsub.Subscription){
		"needs OrderByKey or OrderStrict: with order none":              func(s *pubsub.Subscription) { s.Order = pubsub.OrderNone },
		"needs OrderByKey or OrderStrict: with order by key per member": func(s *pubsub.Subscription) { s.Order = pubsub.OrderPerMember },
		"needs OrderByKey or OrderStrict: with order by key, loosely":   func(s *pubsub.Subscription) { s.Order = pubsub.OrderByKeyLoose },
		"needs a group":                    func(s *pubsub.Subscription) { s.Group = pubsub.Broadcast },
		"excludes DeadLetter.Topic":        func(s *pubsub.Subscription) { s.DeadLetter.Topic = "elsewhere" },
		"Route, To and Drop":               func(s *pubsub.Subscription) { s.DeadLetter.Drop = true },
		"the group's own dead letters: it": func(s *pubsub.Subscription) { s.DeadLetter.Route = func(*pubsub.Delivery, error) string { return "" } },
		"neither Continue nor BlockKey":    func(s *pubsub.Subscription) { s.AfterDeadLetter = 7 },
	} {
		s := blocking()
		edit(&s)
		_, err := b.Subscribe(t.Context(), s, func(context.Context, *pubsub.Delivery) error { return nil })
		if !errors.Is(err, pubsub.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	d := memory.NewServer(memory.Config{}).Driver()
	bare, err := pubsub.New(t.Context(), struct{ pubsub.Driver }{d}, nil)
	if err == nil {
		defer bare.Close()
		_, err = bare.Subscribe(t.Context(), blocking(), func(context.Context, *pubsub.Delivery) error { return nil })
	}
	if !errors.Is(err, pubsub.ErrUnsupported) {
		t.Errorf("on a broker that shows no dead letters: %v", err)
	}
}

// A Redact that takes the key away would open it at the next restart.
func TestBlockKeyAndRedact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		b := open(t, s)
		defer b.Close()
		sub := blocking()
		var wrong atomic.Bool
		wrong.Store(true)
		sub.DeadLetter.Redact = func(m *pubsub.Message) {
			if m.Payload = nil; wrong.Load() {
				m.Key = "redacted"
			}
		}
		k := newKeeper(t, s, b, sub, "a1")
		if err := b.Publish(t.Context(), "t", pubsub.Message{ID: "a1", Key: "a"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if st := k.c.State(); st.Phase != pubsub.Blocked || !strings.Contains(st.Reason.Error(), "Redact") {
			t.Errorf("%+v", st)
		}
		k.wantDead("a", "")
		k.wantDead("r", "")
		wrong.Store(false)
		settled(t, b)
		k.wantDead("a", "a1 permanent open")
	})
}

// A message that is suspected of killing processes follows its key, too: in quarantine it would be behind its followers.
func TestSuspectOfABlockedKeyFollowsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		d := &closed{full: s.Driver().(full)}
		b := openOn(t, d)
		defer b.Close()
		d.suspects.Store(true)
		k := newKeeper(t, s, b, blocking(), "a1")
		k.send("a1", "a2", "a3")
		k.want("a", "a1")
		k.wantDead("a", "a1 permanent open, a2 key-blocked open, a3 key-blocked open")
	})
}

// An outcome that this process tells while it reads all of them counts at once.
func TestOutcomeWhileAllIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		d := &closed{full: s.Driver().(full)}
		b := openOn(t, d)
		defer b.Close()
		operator := open(t, s)
		defer operator.Close()
		k := newKeeper(t, s, b, blocking(), "a1")
		k.send("a1")
		k.heal()
		time.Sleep(59 * time.Second)
		held := make(chan struct{})
		d.holds.Store(&held)
		time.Sleep(3 * time.Second) // the look that reads all has read what was told, and waits for the dead letters
		k.b = operator
		k.replay(dlq.Filter{})
		k.wantBlocked(0)
		close(held)
		synctest.Wait()
		k.wantBlocked(0)
		k.want("a", "a1 a1")
	})
}

// full is all that memory's driver can.
type full interface {
	pubsub.Driver
	pubsub.Browser
	pubsub.Lagger
	pubsub.Purger
}

// A closed driver has dead letters that cannot be reached for a while.
type closed struct {
	full
	refuses atomic.Bool  // to store
	loses   atomic.Int64 // so many settlements, behind a dead letter
	blind   atomic.Bool  // it cannot browse
	after   atomic.Int64 // so many browses later it cannot; 0 = it is not counted
	hangs   atomic.Bool  // and says nothing then
	stored  atomic.Bool  // a dead letter

	suspects atomic.Bool                   // what is named a2 was delivered often
	holds    atomic.Pointer[chan struct{}] // all dead letters are shown when it is closed
}

func (d *closed) Browse(ctx context.Context, p pubsub.Place, from pubsub.Position) iter.Seq2[pubsub.Record, error] {
	if d.blind.Load() {
		return func(yield func(pubsub.Record, error) bool) {
			if d.hangs.Load() {
				<-ctx.Done()
			}
			yield(pubsub.Record{}, &pubsub.Error{Op: "browse", Code: pubsub.ErrUnavailable, Err: errors.New("blind")})
		}
	}
	if held := d.holds.Load(); held != nil && p.Kind == pubsub.PlaceDead && from == (pubsub.Position{}) {
		<-*held
	}
	if d.after.Load() > 0 && d.after.Add(-1) == 0 {
		d.blind.Store(true)
	}
	return d.full.Browse(ctx, p, from)
}

func (d *closed) Classify(err error) (pubsub.Code, bool) {
	if e, ok := errors.AsType[*pubsub.Error](err); ok {
		return e.Code, false
	}
	return d.full.Classify(err)
}

func (d *closed) OpenProducer(ctx context.Context, spec pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	p, err := d.full.OpenProducer(ctx, spec, report)
	return closedProducer{p, d, report}, err
}

type closedProducer struct {
	pubsub.Producer
	d      *closed
	report func([]pubsub.Result)
}

func (p closedProducer) Send(ctx context.Context, run []pubsub.Out) (int, error) {
	for i, o := range run {
		if o.To.Kind == pubsub.PlaceDead {
			if p.d.refuses.Load() {
				p.report([]pubsub.Result{{Seq: o.Seq, Fate: pubsub.FateRefused, Err: &pubsub.Error{Code: pubsub.ErrExhausted, Err: errors.New("full")}}})
				continue
			}
			p.d.stored.Store(true)
		}
		if _, err := p.Producer.Send(ctx, run[i:i+1]); err != nil {
			return i, err
		}
	}
	return len(run), nil
}

func (d *closed) OpenSource(ctx context.Context, spec pubsub.SourceSpec) (pubsub.Source, error) {
	s, err := d.full.OpenSource(ctx, spec)
	return closedSource{s, d}, err
}

type closedSource struct {
	pubsub.Source
	d *closed
}

func (s closedSource) Settle(ctx context.Context, all []pubsub.Settlement, errs []error) error {
	if s.d.stored.Load() && s.d.loses.Add(-1) >= 0 {
		return &pubsub.Error{Code: pubsub.ErrUnavailable, Err: errors.New("the session is over")}
	}
	return s.Source.Settle(ctx, all, errs)
}

func (s closedSource) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	n, events, err := s.Source.Recv(ctx, buf, maxBytes)
	if s.d.hangs.Load() && n == 0 && err == nil && len(events) > 0 { // a lane may come together with its first records
		var more []pubsub.LaneEvent
		n, more, err = s.Source.Recv(ctx, buf, maxBytes)
		events = append(events, more...)
	}
	for i := range buf[:n] {
		if s.d.suspects.Load() && buf[i].Msg.ID == "a2" {
			buf[i].Deliveries = 100
		}
	}
	return n, events, err
}
