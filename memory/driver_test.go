package memory_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

func openSource(t *testing.T, d pubsub.Driver, group, member string) pubsub.Source {
	t.Helper()
	src, err := d.OpenSource(t.Context(), pubsub.SourceSpec{From: pubsub.Place{Topic: "t", Group: group}, AckWait: 1e9, MaxInFlight: 10, Member: member})
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func TestTokenOfANegativeLaneIsStale(t *testing.T) {
	d := memory.NewServer(memory.Config{}).Driver()
	src := openSource(t, d, "g", "m")
	errs := make([]error, 1)
	if err := src.Settle(t.Context(), []pubsub.Settlement{{Token: pubsub.Token{Lane: -1}, As: pubsub.SettleAck}}, errs); err != nil {
		t.Fatal(err)
	}
	if code, _ := d.Classify(errs[0]); code != pubsub.ErrLeaseLost {
		t.Fatalf("got %v", errs[0])
	}
	if err := src.LaneDone(t.Context(), pubsub.LaneEvent{Lane: -1}); err != nil {
		t.Fatal(err)
	}
}

func TestSyncOfADeadSessionFails(t *testing.T) {
	s := memory.NewServer(memory.Config{})
	src := openSource(t, s.Driver(), "g", "m")
	if err := src.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.DropSessions()
	if src.Sync(t.Context()) == nil {
		t.Fatal("nothing can be told to a dead session")
	}
}

func TestEmptyMessagesAreBounded(t *testing.T) {
	b, err := memory.NewServer(memory.Config{MaxBytes: 10 << 10}).Open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	err = b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{{Topic: "t", Group: "g"}}})
	for range 1000 {
		if err == nil {
			err = b.Publish(t.Context(), "t", pubsub.Message{})
		}
	}
	if !errors.Is(err, pubsub.ErrExhausted) {
		t.Fatalf("got %v", err)
	}
}

func TestBroadcastsOfOneMemberNameDoNotShare(t *testing.T) {
	s := memory.NewServer(memory.Config{})
	d := s.Driver()
	one, two := openSource(t, d, pubsub.Broadcast, "m"), openSource(t, d, pubsub.Broadcast, "m")
	b, err := s.Open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Publish(t.Context(), "t", pubsub.Message{ID: "1"}); err != nil {
		t.Fatal(err)
	}
	for _, src := range []pubsub.Source{one, two} {
		if n := receive(t.Context(), t, src); n != 1 {
			t.Errorf("%d messages, want 1", n)
		}
	}
}

// receive waits for a record.
func receive(ctx context.Context, t *testing.T, src pubsub.Source) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 5e9)
	defer cancel()
	for {
		n, _, err := src.Recv(ctx, make([]pubsub.Record, 10), 1<<20)
		if n > 0 || err != nil {
			return n
		}
	}
}

// An answer to a handover that was given up on must not answer the next one: the member still handles messages of that lane.
func TestLateLaneDoneIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memory.NewServer(memory.Config{}).Driver()
		if err := d.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "t", Partitions: 2}}}, pubsub.Create); err != nil {
			t.Fatal(err)
		}
		a := openSource(t, d, "g", "a")
		events(t, a)
		b := openSource(t, d, "g", "b")
		first := losing(t, events(t, a))
		time.Sleep(2 * time.Second) // past the deadline
		events(t, a)
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		events(t, a)
		c := openSource(t, d, "g", "c")
		second := losing(t, events(t, a))
		if err := a.LaneDone(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		if got := events(t, c); len(got) > 0 {
			t.Fatalf("the lane was handed on by an answer to an earlier event: %v", got)
		}
		if err := a.LaneDone(t.Context(), second); err != nil {
			t.Fatal(err)
		}
		if got := events(t, c); len(got) != 1 || got[0].Kind != pubsub.LaneGained {
			t.Fatalf("the next member has %v, not the lane", got)
		}
	})
}

// events takes what has happened to a source's lanes.
func events(t *testing.T, src pubsub.Source) (all []pubsub.LaneEvent) {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		_, got, err := src.Recv(ctx, nil, 0)
		cancel()
		if err != nil {
			return all
		}
		all = append(all, got...)
	}
}

func losing(t *testing.T, all []pubsub.LaneEvent) pubsub.LaneEvent {
	t.Helper()
	for _, ev := range all {
		if ev.Kind == pubsub.LaneLosing {
			return ev
		}
	}
	t.Fatalf("no lane is asked for: %v", all)
	return pubsub.LaneEvent{}
}

// The server's own limit lies Headroom above what users may publish, and is as hard as any server's.
func TestServerTakesHeadroomAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 64 << 10
		c := newClient(t, memory.NewServer(memory.Config{MaxMessage: most}))
		c.mustEnsure(pubsub.TopicSpec{Name: "t"}, "g", pubsub.OrderNone)
		if n := c.Capabilities().MaxMessage; n != most {
			t.Errorf("MaxMessage is %d", n)
		}
		for _, to := range []pubsub.Place{{Topic: "t"}, {Topic: "t", Group: "g", Kind: pubsub.PlaceDead}} {
			c.mustSend(to, pubsub.Message{Payload: make([]byte, most+pubsub.Headroom)})
			r := c.send(pubsub.Out{To: to, Msg: &pubsub.Message{Payload: make([]byte, most+pubsub.Headroom+1)}})
			if r.Fate != pubsub.FateRefused {
				t.Fatalf("one byte more than the limit: %+v", r)
			}
			if code, final := c.Classify(r.Err); code != pubsub.ErrTooLarge || !final {
				t.Errorf("one byte more than the limit: %v", r.Err)
			}
		}
	})
}

// What does not fit into an empty topic is too large, and no history goes for it.
func TestLargerThanItsTopicIsTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, memory.NewServer(memory.Config{MaxBytes: 10_000}))
		c.mustEnsure(pubsub.TopicSpec{Name: "t", MaxBytes: 5_000}, "", pubsub.OrderNone)
		c.mustEnsure(pubsub.TopicSpec{Name: "u"}, "", pubsub.OrderNone)
		c.mustSend(pubsub.Place{Topic: "t"}, pubsub.Message{ID: "1"})
		for topic, size := range map[string]int{"t": 4_801, "u": 9_801} { // 200 are counted besides
			r := c.send(pubsub.Out{To: pubsub.Place{Topic: topic}, Msg: &pubsub.Message{Payload: make([]byte, size)}})
			if r.Fate != pubsub.FateRefused {
				t.Fatalf("%d bytes in %s: %+v", size, topic, r)
			}
			if code, final := c.Classify(r.Err); code != pubsub.ErrTooLarge || !final {
				t.Errorf("%d bytes in %s: %v", size, topic, r.Err)
			}
		}
		if n := len(c.browse(pubsub.Place{Topic: "t"}, pubsub.Position{})); n != 1 {
			t.Errorf("%d messages are in the topic", n)
		}
		c.mustSend(pubsub.Place{Topic: "t"}, pubsub.Message{Payload: make([]byte, 4_700)}) // and now it goes
	})
}
