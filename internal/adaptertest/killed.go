package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/internal/child"
	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A Server is the broker of a test, opened, and its URL, by which processes find it. TestMain calls Main.
type Server struct {
	*pubsub.Broker
	URL string
}

// TestProcessKiller asks for this: a message whose handler kills its process is dead-lettered as a process killer; those that were prefetched with it, which
// are at least so many of 100, are handled and not charged.
func (s Server) TestProcessKiller(t *testing.T, held int) {
	const prefetch, attempts, crashBound = 100, 3, 2
	f := fate{URL: s.URL, Topic: Unique("killer"), Group: "g", MaxInFlight: prefetch, Concurrency: 1, MaxAttempts: attempts, Held: held}
	s.ensure(t, f)
	msgs := numbered(prefetch)
	msgs[0].Type = kills
	PublishAll(t, s.Broker, f.Topic, msgs)
	handled := map[string]bool{}
	starts, deaths := 0, 0
	dead := func() int { return len(DeadLetters(t, s.Broker, f.Topic, f.Group)) }
	for killed := true; killed; {
		if deaths > attempts+crashBound+2 {
			t.Fatalf("%d processes were killed by one message", deaths)
		}
		if deaths > 0 {
			f.Held = 0 // nobody says how many come with it again
		}
		killed = f.run(t, func(word, rest string) {
			id, attempt, _ := strings.Cut(rest, " ")
			switch {
			case word != "start":
			case id == msgs[0].ID:
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
	letters := DeadLetters(t, s.Broker, f.Topic, f.Group)
	if len(letters) != 1 || letters[0].Msg.ID != msgs[0].ID || letters[0].Msg.Headers.Get("omnibus-dlq-reason") != "process-killer" {
		t.Errorf("the dead letters are %v, want the killer alone", letters)
	}
	if starts > attempts+crashBound || starts != deaths {
		t.Errorf("the killer was started %d times and killed %d processes, MaxAttempts is %d", starts, deaths, attempts)
	}
	if lag, err := s.Lag(t.Context(), f.Topic, f.Group); err != nil || lag.Messages != 0 || len(handled) != prefetch-1 {
		t.Errorf("%d neighbours were handled, %d messages are left (%v)", len(handled), lag.Messages, err)
	}
	t.Logf("%d starts of the killer in %d processes", starts, deaths+1)
}

// TestKilledBetweenDeadLetterAndAck asks for this: processes that are killed between a dead letter and the ack of its original leave no duplicate; the copy that is
// sent again has the same token.
func (s Server) TestKilledBetweenDeadLetterAndAck(t *testing.T) {
	const failing, seed = 60, 20
	rng := rand.New(rand.NewPCG(seed, 0))
	f := fate{URL: s.URL, Topic: Unique("killed"), Group: "g", MaxInFlight: 16, Concurrency: 2,
		MaxAttempts: 10, // well above the kills: what has been delivered too often goes by the quarantine, whose copies have other tokens
	}
	s.ensure(t, f)
	msgs := numbered(failing)
	for i := range msgs {
		msgs[i].Type = fails
	}
	PublishAll(t, s.Broker, f.Topic, msgs)
	nothing := func(string, string) {}
	for way := range deathWays {
		f.At, f.Way = 1+rng.IntN(failing/int(deathWays)-2), way
		if !f.run(t, nothing, func() bool { return false }) {
			t.Fatalf("the process that was to die %d ended by itself", way)
		}
		if way == whenSent {
			poll.Until(t, "the copy at which the process died is there", func() bool { return len(DeadLetters(t, s.Broker, f.Topic, f.Group)) >= f.At })
		}
	}
	f.At = 0
	if f.run(t, nothing, func() bool { return Settled(t, s.Broker, f.Topic, f.Group) }) {
		t.Fatal("the last process was killed, too")
	}
	copies := map[string]int{}
	for _, r := range DeadLetters(t, s.Broker, f.Topic, f.Group) {
		copies[r.Msg.ID]++
	}
	for _, m := range msgs {
		if copies[m.ID] != 1 {
			t.Errorf("%s has %d dead letters", m.ID, copies[m.ID])
		}
	}
}

// TestReplayKilled asks for this: a replay whose process is killed three times, and that goes on from its journal, brings each of 10,000 dead letters once, as
// it was.
func (s Server) TestReplayKilled(t *testing.T) {
	const n, deaths, seed = 10_000, 3, 20
	rng := rand.New(rand.NewPCG(seed, 0))
	f := fate{URL: s.URL, Topic: Unique("replayed"), Group: "g", Journal: filepath.Join(t.TempDir(), "journal")}
	msgs := make([]pubsub.Message, n)
	for i := range msgs {
		msgs[i] = pubsub.Message{
			ID: fmt.Sprintf("m-%05d", i), Key: fmt.Sprintf("k-%d", i%300), Type: "order", ContentType: "text/plain", Payload: fmt.Appendf(nil, "payload %d \x00\xff", i),
			Headers: pubsub.Headers{{Name: "a", Value: strconv.Itoa(i)}, {Name: "b", Value: "\x00\xfe"}, {Name: "a", Value: ""}, {Name: "n", Value: "7", Kind: pubsub.HeaderInt}},
			Time:    time.Unix(1_000_000_000, int64(i)).UTC(),
		}
	}
	var mu sync.Mutex
	came := map[string][]pubsub.Message{}
	if _, err := s.Subscribe(t.Context(), pubsub.Subscription{Topic: f.Topic, Group: f.Group, Concurrency: 4}, func(_ context.Context, d *pubsub.Delivery) error {
		if d.Headers.Get("omnibus-replays") == "" {
			return pubsub.Permanent(errors.New("it fails once"))
		}
		mu.Lock()
		defer mu.Unlock()
		came[d.ID] = append(came[d.ID], d.Message.Clone())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	settled := func() bool { return Settled(t, s.Broker, f.Topic, f.Group) }
	begin := time.Now()
	PublishAll(t, s.Broker, f.Topic, msgs)
	poll.Within(t, time.Minute, "all are given up", settled)
	t.Logf("%d dead letters after %v", n, time.Since(begin).Round(time.Millisecond))
	begin = time.Now()
	var told string
	for life := range deaths + 1 {
		f.At, f.Way, f.Resume = n/20+rng.IntN(n/4), deathWay(life%2), life > 0
		if life == deaths {
			f.At = 0
		}
		killed := f.run(t, func(word, rest string) {
			if word == "replayed" {
				told = rest
			}
		}, func() bool { return false })
		if killed != (life < deaths) {
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
	groups, err := dlq.Open(s.Broker, f.Topic, f.Group).Groups(t.Context(), dlq.Filter{})
	if err != nil || len(groups) != 1 || groups[0].Count != n || groups[0].States[dlq.StateResolved] != n {
		t.Errorf("listed and grouped: %+v, %v", groups, err)
	}
	t.Logf("replayed in %d lives after %v", deaths+1, time.Since(begin).Round(time.Millisecond))
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

func (s Server) ensure(t *testing.T, f fate) {
	t.Helper()
	if err := s.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{f.subscription()}}); err != nil {
		t.Fatal(err)
	}
}

func numbered(n int) []pubsub.Message {
	msgs := make([]pubsub.Message, n)
	for i := range msgs {
		msgs[i].ID = fmt.Sprintf("m-%d", i)
	}
	return msgs
}

// run starts a process, tells hear what that says until it ends, and returns whether it died of SIGKILL. It tells the process to end once enough says so,
// which is asked at each line and ten times a second.
func (f fate) run(t *testing.T, hear func(word, rest string), enough func() bool) (killed bool) {
	t.Helper()
	p := child.Start(t, "", mortal, f)
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	patience := time.After(2 * time.Minute)
	for open := true; open; {
		var line string
		select {
		case line, open = <-p.Lines:
			word, rest, _ := strings.Cut(line, " ")
			hear(word, rest)
		case <-look.C:
		case <-patience:
			t.Fatal("a process has neither died nor come to its end within 2 min")
		}
		if enough() {
			p.Quit()
		}
	}
	killed, err := p.Wait()
	if err != nil {
		t.Fatalf("a process ended with %v", err)
	}
	return killed
}
