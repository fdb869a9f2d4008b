package redisstreams_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

// deadLetters are those of a group.
func deadLetters(t *testing.T, b *pubsub.Broker, topic, group string) (all []pubsub.Record) {
	t.Helper()
	for r, err := range b.Browse(t.Context(), pubsub.Place{Topic: topic, Group: group, Kind: pubsub.PlaceDead}, pubsub.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func publishAll(t *testing.T, b *pubsub.Broker, topic string, msgs []pubsub.Message) {
	t.Helper()
	for batch := range slices.Chunk(msgs, 500) {
		if err := b.PublishBatch(t.Context(), topic, batch); err != nil {
			t.Fatal(err)
		}
	}
}

// A message whose handler kills its process is dead-lettered as a process killer; those that were prefetched with it are handled and not charged.
func TestProcessKillerForReal(t *testing.T) {
	const prefetch, attempts, crashBound = 100, 3, 2
	s := startServer(t, "default")
	b := s.open(t)
	f := fate{URL: s.address(nil), Topic: "orders", Group: "g", MaxInFlight: prefetch, Concurrency: 1, MaxAttempts: attempts, AckWait: time.Second,
		Held: prefetch * 9 / 10}
	if err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{f.subscription()}}); err != nil {
		t.Fatal(err)
	}
	msgs := make([]pubsub.Message, prefetch)
	for i := range msgs {
		msgs[i].ID = fmt.Sprintf("m-%d", i)
	}
	msgs[0].Type = "kills"
	publishAll(t, b, "orders", msgs)
	handled := map[string]bool{}
	starts, deaths := 0, 0
	dead := func() int { return len(deadLetters(t, b, "orders", "g")) }
	for killed := true; killed; {
		if deaths > attempts+crashBound+2 {
			t.Fatalf("%d processes were killed by one message", deaths)
		}
		if deaths > 0 {
			f.Held = 0 // nobody says how many come with it again
		}
		killed = f.start(t).listen(t, func(word, rest string) {
			id, attempt, _ := strings.Cut(rest, " ")
			switch {
			case word != "start":
			case id == "m-0":
				starts++
			default:
				handled[id] = true
				if attempt != "1" {
					t.Errorf("%s, a neighbour, comes with attempt %s", id, attempt)
				}
			}
		}, func() bool { return len(handled) == prefetch-1 && dead() > 0 })
		if killed {
			deaths++
		}
	}
	letters := deadLetters(t, b, "orders", "g")
	if len(letters) != 1 || letters[0].Msg.ID != "m-0" || letters[0].Msg.Headers.Get("omnibus-dlq-reason") != "process-killer" {
		t.Errorf("the dead letters are %v, want the killer alone", letters)
	}
	if starts > attempts+crashBound || starts != deaths {
		t.Errorf("the killer was started %d times and killed %d processes, MaxAttempts is %d", starts, deaths, attempts)
	}
	if lag, err := b.Lag(t.Context(), "orders", "g"); err != nil || lag.Messages != 0 || len(handled) != prefetch-1 {
		t.Errorf("%d neighbours were handled, %d messages are left (%v)", len(handled), lag.Messages, err)
	}
	t.Logf("%d starts of the killer in %d processes", starts, deaths+1)
}

// Processes that are killed between a dead letter and the ack of its original leave no duplicate: the copy that is sent again has the same token.
func TestKilledBetweenDeadLetterAndAck(t *testing.T) {
	const failing, seed = 60, 20
	rng := rand.New(rand.NewPCG(seed, 0))
	s := startServer(t, "default")
	b := s.open(t)
	f := fate{URL: s.address(nil), Topic: "orders", Group: "g", MaxInFlight: 16, Concurrency: 2, AckWait: time.Second,
		MaxAttempts: 10, // well above the kills: what has been delivered too often goes by the quarantine, whose copies have other tokens
	}
	if err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{f.subscription()}}); err != nil {
		t.Fatal(err)
	}
	msgs := make([]pubsub.Message, failing)
	for i := range msgs {
		msgs[i].ID, msgs[i].Type = fmt.Sprintf("m-%d", i), "fails"
	}
	publishAll(t, b, "orders", msgs)
	nothing := func(string, string) {}
	for way := range deathWays {
		f.At, f.Way = 1+rng.IntN(failing/int(deathWays)-2), way
		if !f.start(t).listen(t, nothing, func() bool { return false }) {
			t.Fatalf("the process that was to die %d ended by itself", way)
		}
		if way == whenSent {
			poll.Until(t, "the copy at which the process died is there", func() bool { return len(deadLetters(t, b, "orders", "g")) >= f.At })
		}
	}
	f.At = 0
	settled := func() bool {
		lag, err := b.Lag(t.Context(), "orders", "g")
		return err == nil && lag.Messages == 0
	}
	if f.start(t).listen(t, nothing, settled) {
		t.Fatal("the last process was killed, too")
	}
	copies := map[string]int{}
	for _, r := range deadLetters(t, b, "orders", "g") {
		copies[r.Msg.ID]++
	}
	for _, m := range msgs {
		if copies[m.ID] != 1 {
			t.Errorf("%s has %d dead letters", m.ID, copies[m.ID])
		}
	}
}

// A replay whose process is killed three times, and that goes on from its journal, brings each of 10,000 dead letters once, as it was.
func TestReplayKilledForReal(t *testing.T) {
	const n, kills, seed = 10_000, 3, 20
	rng := rand.New(rand.NewPCG(seed, 0))
	s := startServer(t, "default")
	b := s.open(t)
	msgs := make([]pubsub.Message, n)
	for i := range msgs {
		msgs[i] = pubsub.Message{
			ID: fmt.Sprintf("m-%05d", i), Key: fmt.Sprintf("k-%d", i%300), Type: "order", ContentType: "text/plain", Payload: fmt.Appendf(nil, "payload %d \x00\xff", i),
			Headers: pubsub.Headers{{Name: "a", Value: fmt.Sprint(i)}, {Name: "b", Value: "\x00\xfe"}, {Name: "a", Value: ""}, {Name: "n", Value: "7", Kind: pubsub.HeaderInt}},
			Time:    time.Unix(1_000_000_000, int64(i)).UTC(),
		}
	}
	var mu sync.Mutex
	came := map[string][]pubsub.Message{}
	sub := pubsub.Subscription{Topic: "orders", Group: "g", Concurrency: 4}
	if _, err := b.Subscribe(t.Context(), sub, func(_ context.Context, d *pubsub.Delivery) error {
		if d.Headers.Get("omnibus-replays") == "" {
			return pubsub.Permanent(fmt.Errorf("it fails once"))
		}
		mu.Lock()
		defer mu.Unlock()
		came[d.ID] = append(came[d.ID], d.Message.Clone())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	settled := func() bool {
		lag, err := b.Lag(t.Context(), "orders", "g")
		return err == nil && lag.Messages == 0
	}
	begin := time.Now()
	publishAll(t, b, "orders", msgs)
	poll.Within(t, time.Minute, "all are given up", settled)
	t.Logf("%d dead letters after %v", n, time.Since(begin).Round(time.Millisecond))
	begin = time.Now()
	f := fate{URL: s.address(nil), Topic: "orders", Group: "g", Journal: filepath.Join(t.TempDir(), "journal")}
	var told string
	for life := range kills + 1 {
		f.At, f.Way, f.Resume = n/20+rng.IntN(n/4), deathWay(life%2), life > 0
		if life == kills {
			f.At = 0
		}
		killed := f.start(t).listen(t, func(word, rest string) {
			if word == "replayed" {
				told = rest
			}
		}, func() bool { return false })
		if killed != (life < kills) {
			t.Fatalf("life %d was killed: %v", life, killed)
		}
	}
	if want := fmt.Sprintf("%d failed 0", n); told != want {
		t.Errorf("the last process says it has replayed %s, want %s", told, want)
	}
	poll.Within(t, time.Minute, "all replays are handled", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(came) == n
	})
	poll.Within(t, time.Minute, "nothing is left", settled)
	groups, err := dlq.Open(b, "orders", "g").Groups(t.Context(), dlq.Filter{})
	if err != nil || len(groups) != 1 || groups[0].Count != n || groups[0].States[dlq.StateResolved] != n {
		t.Errorf("listed and grouped: %+v, %v", groups, err)
	}
	t.Logf("replayed in %d lives after %v", kills+1, time.Since(begin).Round(time.Millisecond))
	mu.Lock()
	defer mu.Unlock()
	for _, want := range msgs {
		got := came[want.ID]
		if len(got) != 1 {
			t.Errorf("%s came %d times", want.ID, len(got))
			continue
		}
		m := got[0]
		m.Headers = slices.DeleteFunc(m.Headers, func(h pubsub.Header) bool { return strings.HasPrefix(h.Name, "omnibus-replay") })
		if !reflect.DeepEqual(m, want) {
			t.Errorf("got  %#v\nwant %#v", m, want)
		}
	}
}
