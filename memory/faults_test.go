package memory_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

func TestEveryPlaceDeduplicatesWithinTheWindow(t *testing.T) {
	for _, topic := range []string{"t", "t.*"} {
		for _, kind := range []pubsub.PlaceKind{pubsub.PlaceMain, pubsub.PlaceRetry, pubsub.PlaceQuarantine, pubsub.PlaceDead, pubsub.PlaceState} {
			if kind == pubsub.PlaceMain && pubsub.IsPattern(topic) {
				continue
			}
			synctest.Test(t, func(t *testing.T) {
				c := newClient(t, memory.NewServer(memory.Config{}))
				c.open(pubsub.Place{Topic: topic, Group: "g"}, pubsub.OrderNone)
				to := pubsub.Place{Topic: topic, Group: "g", Kind: kind}
				out := pubsub.Out{To: to, Msg: &pubsub.Message{ID: "1"}, Dedup: pubsub.Dedup{1}}
				first := c.send(out)
				out.Again = true
				if r := c.send(out); r.Err != nil || r.Pos != first.Pos {
					t.Errorf("%q kind %d: sent again: %+v, want the answer of before, %+v", topic, kind, r, first)
				}
				if n := len(c.browse(to, pubsub.Position{})); n != 1 {
					t.Errorf("%q kind %d: stored %d times", topic, kind, n)
				}
				time.Sleep(3 * time.Minute)
				c.send(out)
				if n := len(c.browse(to, pubsub.Position{})); n != 2 {
					t.Errorf("%q kind %d: behind the window stored %d times, want 2", topic, kind, n)
				}
			})
		}
	}
}

// What a group has settled is forgotten, but that it was there is not.
func TestSettledCopiesStillDeduplicate(t *testing.T) {
	for _, kind := range []pubsub.PlaceKind{pubsub.PlaceRetry, pubsub.PlaceQuarantine} {
		synctest.Test(t, func(t *testing.T) {
			c := newClient(t, memory.NewServer(memory.Config{}))
			main := c.open(pubsub.Place{Topic: "t", Group: "g"}, pubsub.OrderNone)
			to := pubsub.Place{Topic: "t", Group: "g", Kind: kind}
			r := main
			if kind == pubsub.PlaceQuarantine {
				r = c.open(to, pubsub.OrderNone)
			}
			for i := range 600 {
				c.send(pubsub.Out{To: to, Msg: &pubsub.Message{}, Dedup: pubsub.Dedup{byte(i), byte(i >> 8), 1}})
			}
			r.settle(pubsub.SettleAck, r.take(600)...)
			for i := range 600 {
				c.send(pubsub.Out{To: to, Msg: &pubsub.Message{}, Dedup: pubsub.Dedup{byte(i), byte(i >> 8), 1}, Again: true})
			}
			if got := len(r.take(1)); got != 0 {
				t.Errorf("kind %d: a copy that was sent again came after it was settled", kind)
			}
		})
	}
}

// One token names a message of one place only.
func TestPlacesDoNotShareTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, memory.NewServer(memory.Config{}))
		c.mustEnsure(pubsub.TopicSpec{Name: "t"}, "g", pubsub.OrderNone)
		c.mustEnsure(pubsub.TopicSpec{Name: "t"}, "h", pubsub.OrderNone)
		for _, to := range []pubsub.Place{
			{Topic: "t"}, {Topic: "t", Group: "g", Kind: pubsub.PlaceRetry}, {Topic: "t", Group: "h", Kind: pubsub.PlaceRetry},
			{Topic: "t", Group: "g", Kind: pubsub.PlaceQuarantine}, {Topic: "t", Group: "g", Kind: pubsub.PlaceDead},
		} {
			c.send(pubsub.Out{To: to, Msg: &pubsub.Message{}, Dedup: pubsub.Dedup{1}, Again: true})
			if n := len(c.browse(to, pubsub.Position{})); n != 1 {
				t.Errorf("%+v has %d messages, want 1", to, n)
			}
		}
	})
}

func TestHeldMessageDoesNotKeepWhatIsBehindIt(t *testing.T) {
	for name, hold := range map[string]func(r *reader, rec pubsub.Record){
		"running": func(*reader, pubsub.Record) {},
		"waiting": func(r *reader, rec pubsub.Record) { r.settle(pubsub.SettleRetryIn, rec) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newClient(t, memory.NewServer(memory.Config{MaxBytes: 100 << 10}))
				main := pubsub.Place{Topic: "t", Group: "g"}
				r := c.open(main, pubsub.OrderNone)
				c.mustSend(main, pubsub.Message{ID: "held"})
				held := r.take(1)
				hold(r, held[0])
				for i := range 5000 {
					c.mustSend(pubsub.Place{Topic: "t"}, pubsub.Message{ID: fmt.Sprint(i)})
					if i%100 == 99 {
						r.settle(pubsub.SettleAck, r.take(100)...)
					}
				}
				time.Sleep(2 * time.Hour)
				if back := r.take(10); len(back) != 1 || back[0].Msg.ID != "held" || back[0].Pos != held[0].Pos {
					t.Fatalf("the message that was held came back as %v", ids(back))
				}
			})
		})
	}
}

// What is counted is what is there, however much went through: tokens of what is dropped included.
func TestRoomDoesNotDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, memory.NewServer(memory.Config{MaxBytes: 200_000}))
		main := pubsub.Place{Topic: "t", Group: "g"}
		r := c.open(main, pubsub.OrderNone)
		var held []pubsub.Record
		for range 30 * 64 { // one of each 64 is held, and with it the place of the others
			c.mustSend(main, pubsub.Message{})
			rec := r.take(1)
			if rec[0].Token.A%64 == 10 {
				held = append(held, rec...)
			} else {
				r.settle(pubsub.SettleAck, rec...)
			}
		}
		if n := c.fill(main); n > 80 {
			t.Errorf("beside the tokens of 30 times 63 messages there was room for %d of 1 kB", n)
		}
		r.settle(pubsub.SettleAck, held...)
		r.settle(pubsub.SettleAck, r.take(100)...)
		if n := c.fill(main); n < 185 || n > 200 {
			t.Errorf("when all is settled there is room for %d messages of 1 kB in 200 kB", n)
		}
	})
}

// Tokens are remembered for the window, but nothing is refused for them.
func TestTokensGoWhenTheirRoomIsNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, memory.NewServer(memory.Config{MaxBytes: 100_000}))
		r := c.open(pubsub.Place{Topic: "t", Group: "g"}, pubsub.OrderNone)
		for range 5000 {
			c.mustSend(pubsub.Place{Topic: "t", Group: "g", Kind: pubsub.PlaceRetry}, pubsub.Message{})
			r.settle(pubsub.SettleAck, r.take(1)...)
		}
	})
}

func TestDeadBroadcastNeedsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, memory.NewServer(memory.Config{MaxBytes: 100_000}))
		r := c.open(pubsub.Place{Topic: "t", Group: pubsub.Broadcast}, pubsub.OrderNone)
		c.fill(pubsub.Place{Topic: "t"})
		r.take(10)
		if err := r.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := c.fill(pubsub.Place{Topic: "t"}); n != 10_000 {
			t.Errorf("only %d messages found room: something still needs those before", n)
		}
	})
}

// History goes first, the oldest of it; what is needed stays, whatever is around it.
func TestHistoryGoesOldestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, memory.NewServer(memory.Config{MaxBytes: 100 * 203}))
		r := c.open(pubsub.Place{Topic: "t", Group: "g"}, pubsub.OrderNone)
		for i := range 100 {
			c.mustSend(pubsub.Place{Topic: "t"}, pubsub.Message{ID: fmt.Sprintf("%03d", i)})
		}
		kept := ids(c.browse(pubsub.Place{Topic: "t"}, pubsub.Position{}))
		if len(kept) < 90 {
			t.Fatalf("%d messages are kept", len(kept))
		}
		recs := r.take(len(kept))
		for i, rec := range recs {
			if i%10 != 0 {
				r.settle(pubsub.SettleAck, rec)
			}
		}
		if got := ids(c.browse(pubsub.Place{Topic: "t"}, pubsub.Position{})); !slices.Equal(got, kept) {
			t.Fatalf("history went although nobody needs the room: %v", got)
		}
		for i := range 40 {
			c.mustSend(pubsub.Place{Topic: "t"}, pubsub.Message{ID: fmt.Sprint("new-", i)})
		}
		got := ids(c.browse(pubsub.Place{Topic: "t"}, pubsub.Position{}))
		gone := 0
		for i, id := range kept {
			switch there := slices.Contains(got, id); {
			case i%10 == 0 && !there:
				t.Errorf("%s is needed, and gone", id)
			case i%10 != 0 && !there:
				if gone++; gone > 1 && i > 1 && i%10 > 1 && slices.Contains(got, kept[i-1]) {
					t.Errorf("%s is gone, and %s, which is older, is not", id, kept[i-1])
				}
			}
		}
		if gone < 40 || gone > 70 {
			t.Errorf("for 40 messages %d of history went", gone)
		}
	})
}

// A replay comes through the lane of its key's partition, in its turn.
func TestReplayComesThroughItsKeysLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, memory.NewServer(memory.Config{}))
		c.mustEnsure(pubsub.TopicSpec{Name: "t", Partitions: 8}, "g", pubsub.OrderByKey)
		r := c.open(pubsub.Place{Topic: "t", Group: "g"}, pubsub.OrderByKey)
		other := c.open(pubsub.Place{Topic: "t", Group: "h"}, pubsub.OrderByKey)
		for i := range 20 {
			key := fmt.Sprint("k", i)
			c.mustSend(pubsub.Place{Topic: "t"}, pubsub.Message{ID: "1", Key: key})
			c.mustSend(pubsub.Place{Topic: "t", Group: "g", Kind: pubsub.PlaceRetry}, pubsub.Message{ID: "2", Key: key})
			c.mustSend(pubsub.Place{Topic: "t"}, pubsub.Message{ID: "3", Key: key})
		}
		lanes, seen := map[string]int32{}, map[string]string{}
		for _, rec := range r.take(60) {
			if lane, ok := lanes[rec.Msg.Key]; ok && lane != rec.Token.Lane {
				t.Errorf("key %s comes through lanes %d and %d", rec.Msg.Key, lane, rec.Token.Lane)
			}
			lanes[rec.Msg.Key] = rec.Token.Lane
			seen[rec.Msg.Key] += rec.Msg.ID
		}
		for key, got := range seen {
			if got != "123" {
				t.Errorf("key %s came as %s", key, got)
			}
		}
		if n := len(other.take(60)); n != 40 {
			t.Errorf("the other group got %d messages, want 40", n)
		}
		if n := len(c.browse(pubsub.Place{Topic: "t"}, pubsub.Position{})); n != 40 {
			t.Errorf("a browse of the topic finds %d messages, want 40", n)
		}
	})
}

func TestSeekLeavesReplaysAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, memory.NewServer(memory.Config{}))
		main, retry := pubsub.Place{Topic: "t", Group: "g"}, pubsub.Place{Topic: "t", Group: "g", Kind: pubsub.PlaceRetry}
		r := c.open(main, pubsub.OrderNone)
		c.mustSend(main, pubsub.Message{ID: "1"})
		c.mustSend(retry, pubsub.Message{ID: "done"}, pubsub.Message{ID: "waits"}, pubsub.Message{ID: "failed"})
		c.mustSend(main, pubsub.Message{ID: "2"})
		recs := r.take(5)
		r.settle(pubsub.SettleAck, recs[0], recs[1], recs[4])
		r.settle(pubsub.SettleRetryIn, recs[2])
		if err := r.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		lag := func(want int64) {
			t.Helper()
			if l, err := c.Driver.(pubsub.Lagger).Lag(t.Context(), "t", "g"); err != nil || l.Messages != want {
				t.Fatalf("lag %+v %v, want %d", l, err, want)
			}
		}
		lag(2)
		for _, x := range []struct {
			to   pubsub.Start
			want []string
		}{{pubsub.FromNow(), []string{"failed"}}, {pubsub.FromEarliest(), []string{"1", "failed", "2"}}} {
			if err := c.Driver.(pubsub.Seeker).Seek(t.Context(), "t", "g", x.to); err != nil {
				t.Fatal(err)
			}
			lag(int64(len(x.want) + 1))
			r := c.open(main, pubsub.OrderNone)
			got := r.take(5)
			if !slices.Equal(ids(got), x.want) {
				t.Errorf("got %v, want %v", ids(got), x.want)
			}
			if err := r.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Hour)
		if got := ids(c.open(main, pubsub.OrderNone).take(5)); !slices.Equal(got, []string{"1", "waits", "failed", "2"}) {
			t.Errorf("when the delay is over: %v", got)
		}
	})
}

func TestDeletedTopicsGiveTheirRoomBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{MaxBytes: 50 << 10})
		c := newClient(t, s)
		every := c.open(pubsub.Place{Topic: ">", Group: "all"}, pubsub.OrderNone)
		rooms := map[string]int{}
		for round := range 5 {
			r := c.open(pubsub.Place{Topic: "t", Group: "g"}, pubsub.OrderNone)
			q := c.open(pubsub.Place{Topic: "t", Group: "g", Kind: pubsub.PlaceQuarantine}, pubsub.OrderNone)
			c.mustSend(pubsub.Place{Topic: "t"}, make([]pubsub.Message, 20)...)
			for _, kind := range []pubsub.PlaceKind{pubsub.PlaceRetry, pubsub.PlaceQuarantine, pubsub.PlaceDead, pubsub.PlaceState} {
				c.mustSend(pubsub.Place{Topic: "t", Group: "g", Kind: kind}, make([]pubsub.Message, 10)...)
			}
			r.settle(pubsub.SettleAck, r.take(15)...)
			q.settle(pubsub.SettleAck, q.take(5)...)
			held := every.take(10)
			n := c.fill(pubsub.Place{Topic: "t"})
			if round == 0 {
				rooms["t"] = n
			}
			if n != rooms["t"] {
				t.Errorf("round %d: there was room for %d messages more, at first for %d", round, n, rooms["t"])
			}
			s.DeleteTopic("t")
			errs := make([]error, 1)
			if err := every.Settle(t.Context(), []pubsub.Settlement{{Token: held[0].Token, As: pubsub.SettleAck}}, errs); err != nil {
				t.Fatal(err)
			}
			if code, _ := c.Classify(errs[0]); errs[0] == nil || code != pubsub.ErrLeaseLost {
				t.Errorf("settling a message of a topic that was deleted: %v", errs[0])
			}
			if got := every.take(1); len(got) > 0 {
				t.Errorf("a message of a topic that was deleted came")
			}
		}
	})
}

func TestPriorityCompetesOverLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, memory.NewServer(memory.Config{}))
		c.mustEnsure(pubsub.TopicSpec{Name: "t", Partitions: 4}, "g", pubsub.OrderNone)
		main := pubsub.Place{Topic: "t", Group: "g"}
		r := c.open(main, pubsub.OrderNone)
		for range 8 {
			c.mustSend(main, pubsub.Message{})
		}
		old := r.take(8)
		c.mustSend(main, make([]pubsub.Message, 8)...)
		for i := range 8 {
			c.mustSend(main, pubsub.Message{Priority: uint8(1 + i%4)})
		}
		c.mustSend(pubsub.Place{Topic: "t", Group: "g", Kind: pubsub.PlaceRetry}, pubsub.Message{Priority: 5})
		r.settle(pubsub.SettleRelease, old...)
		var got []uint8
		for range 25 {
			rec := r.take(1) // one at a time: each is the best there is
			got = append(got, rec[0].Msg.Priority)
			r.settle(pubsub.SettleAck, rec...)
		}
		want := slices.Clone(got)
		slices.Sort(want)
		slices.Reverse(want)
		if !slices.Equal(got, want) || got[0] != 5 {
			t.Errorf("priorities came as %v", got)
		}
	})
}

// What was put off and comes due does not go before what lies before it in the log.
func TestDueDoesNotOvertake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, memory.NewServer(memory.Config{}))
		main := pubsub.Place{Topic: "t", Group: "g"}
		r := c.open(main, pubsub.OrderByKey)
		c.mustSend(main, pubsub.Message{ID: "1", Key: "k"}, pubsub.Message{ID: "2", Key: "k", Delay: time.Second}, pubsub.Message{ID: "3", Key: "k"})
		time.Sleep(2 * time.Second)
		if got := ids(r.take(3)); !slices.Equal(got, []string{"1", "2", "3"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestTopicFullOfWhatIsNeededRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, memory.NewServer(memory.Config{}))
		c.mustEnsure(pubsub.TopicSpec{Name: "t", Partitions: 2, MaxBytes: 100_000}, "g", pubsub.OrderNone)
		main := pubsub.Place{Topic: "t", Group: "g"}
		n := c.fill(main)
		if n < 90 || n > 110 {
			t.Fatalf("a topic of 100 kB took %d messages of 1 kB", n)
		}
		c.mustEnsure(pubsub.TopicSpec{Name: "u"}, "g", pubsub.OrderNone)
		c.mustSend(pubsub.Place{Topic: "u"}, pubsub.Message{}) // other topics have room
		r := c.open(main, pubsub.OrderNone)
		r.settle(pubsub.SettleAck, r.take(50)...)
		if more := c.fill(main); more < 45 || more > 55 {
			t.Errorf("with 50 of %d messages settled the topic took %d more", n, more)
		}
	})
}

func TestHistoryIsKeptForItsRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, memory.NewServer(memory.Config{}))
		c.mustEnsure(pubsub.TopicSpec{Name: "t", Retention: time.Hour}, "", pubsub.OrderNone)
		c.mustSend(pubsub.Place{Topic: "t"}, pubsub.Message{ID: "1"})
		time.Sleep(40 * time.Minute)
		c.mustSend(pubsub.Place{Topic: "t"}, pubsub.Message{ID: "2"})
		for _, want := range [][]string{{"1", "2"}, {"2"}, nil} {
			if got := ids(c.browse(pubsub.Place{Topic: "t"}, pubsub.Position{})); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			time.Sleep(40 * time.Minute)
		}
	})
}

func TestTopicWithOtherSettingsIsAConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, memory.NewServer(memory.Config{}))
		is := pubsub.TopicSpec{Name: "t", Partitions: 2, Replicas: 1, Retention: time.Hour, MaxBytes: 1 << 20}
		c.mustEnsure(is, "", 0)
		c.mustEnsure(pubsub.TopicSpec{Name: "plain"}, "", 0)
		for _, m := range []pubsub.Manage{pubsub.Create, pubsub.Verify} {
			for _, x := range []struct {
				spec pubsub.TopicSpec
				want pubsub.Code
			}{
				{is, 0},
				{pubsub.TopicSpec{Name: "t"}, 0},
				{pubsub.TopicSpec{Name: "plain", Partitions: 1, Replicas: 1}, 0},
				{pubsub.TopicSpec{Name: "t", Partitions: 3}, pubsub.ErrConflict},
				{pubsub.TopicSpec{Name: "t", Retention: 2 * time.Hour}, pubsub.ErrConflict},
				{pubsub.TopicSpec{Name: "t", MaxBytes: 1}, pubsub.ErrConflict},
				{pubsub.TopicSpec{Name: "plain", Retention: time.Hour}, pubsub.ErrConflict},
				{pubsub.TopicSpec{Name: "plain", MaxBytes: 1}, pubsub.ErrConflict},
				{pubsub.TopicSpec{Name: "plain", Replicas: 3}, pubsub.ErrUnsupported},
			} {
				err := c.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{x.spec}}, m)
				code := pubsub.Code(0)
				if err != nil {
					code, _ = c.Classify(err)
				}
				if code != x.want {
					t.Errorf("manage %v, %+v: got %v, want %v", m, x.spec, err, x.want)
				}
			}
		}
	})
}

func TestBrowseIsOldestFirstOverPartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, memory.NewServer(memory.Config{}))
		c.mustEnsure(pubsub.TopicSpec{Name: "t", Partitions: 4}, "", 0)
		var want []string
		for i := range 700 {
			id := fmt.Sprint(i)
			c.mustSend(pubsub.Place{Topic: "t"}, pubsub.Message{ID: id, Key: fmt.Sprint("k", i%23)})
			want = append(want, id)
		}
		all := c.browse(pubsub.Place{Topic: "t"}, pubsub.Position{})
		if !slices.Equal(ids(all), want) {
			t.Fatalf("got %v", ids(all))
		}
		if got := ids(c.browse(pubsub.Place{Topic: "t"}, all[300].Pos)); !slices.Equal(got, want[300:]) {
			t.Errorf("from the position of 300 on: %v", got)
		}
	})
}
