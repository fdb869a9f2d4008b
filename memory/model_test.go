package memory_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A model knows what each group has not settled, whatever is trimmed, put off, replayed or sought meanwhile.
type model struct {
	t      *testing.T
	c      *client
	rng    *rand.Rand
	groups map[string]*modelGroup
	next   int
	full   int // messages that were refused
}

type modelGroup struct {
	name  string
	order pubsub.Order
	r     *reader
	open  map[string]bool // not settled
	own   map[string]bool // of those: sent to the group alone
	held  []pubsub.Record
}

const modelTopic = "t"

func TestModel(t *testing.T) {
	seeded(t, 4, runModel)
}

func runModel(t *testing.T, rng *rand.Rand) {
	t.Helper()
	s := memory.NewServer(memory.Config{MaxBytes: 300 << 10})
	m := &model{t: t, c: newClient(t, s), rng: rng, groups: map[string]*modelGroup{}}
	empty := m.c.room()
	orders := []pubsub.Order{pubsub.OrderNone, pubsub.OrderByKey}
	parts := 1 + rng.IntN(4)
	for _, name := range []string{"a", "b", "c"} {
		g := &modelGroup{name: name, order: orders[rng.IntN(2)], open: map[string]bool{}, own: map[string]bool{}}
		m.groups[name] = g
		m.c.mustEnsure(pubsub.TopicSpec{Name: modelTopic, Partitions: parts}, name, g.order)
		g.r = m.c.open(pubsub.Place{Topic: modelTopic, Group: name}, g.order)
	}
	for range 2000 {
		g := m.groups[[]string{"a", "b", "c"}[rng.IntN(3)]]
		switch n := rng.IntN(100); {
		case n < 40:
			m.send(pubsub.Place{Topic: modelTopic}, slices.Collect(maps.Values(m.groups))...)
		case n < 50:
			m.send(pubsub.Place{Topic: modelTopic, Group: g.name, Kind: pubsub.PlaceRetry}, g)
		case n < 70:
			g.held = append(g.held, m.receive(g, 1+rng.IntN(20))...)
		case n < 97:
			m.settle(g)
		case n < 98:
			time.Sleep(time.Duration(rng.IntN(1000)) * time.Millisecond)
		default:
			m.restart(g)
		}
		m.checkLag(g)
	}
	for _, g := range m.groups {
		m.restart(g)
		time.Sleep(time.Minute) // all that was put off is due
		for len(g.open) > 0 {
			got := m.receive(g, 100)
			if len(got) == 0 {
				t.Fatalf("group %s: %d messages never came: %v", g.name, len(g.open), slices.Sorted(maps.Keys(g.open)))
			}
			g.held = append(g.held, got...)
			for len(g.held) > 0 {
				m.done(g, 0)
			}
		}
		m.checkLag(g)
	}
	if m.full == 0 {
		t.Error("the broker was never full")
	}
	for _, g := range m.groups {
		if n := len(m.c.browse(pubsub.Place{Topic: modelTopic, Group: g.name, Kind: pubsub.PlaceRetry}, pubsub.Position{})); n > 0 {
			t.Errorf("%d messages for group %s alone are kept although they are settled", n, g.name)
		}
	}
	m.c.fill(pubsub.Place{Topic: modelTopic})
	s.DeleteTopic(modelTopic)
	if n := m.c.room(); n != empty {
		t.Errorf("with everything deleted there is room for %d messages, at first for %d", n, empty)
	}
}

// room is how much an empty broker takes.
func (c *client) room() int {
	c.t.Helper()
	c.mustEnsure(pubsub.TopicSpec{Name: "room"}, "g", pubsub.OrderNone)
	n := c.fill(pubsub.Place{Topic: "room"})
	var s *memory.Server
	if !c.As(&s) {
		c.t.Fatal("the driver does not show its server")
	}
	s.DeleteTopic("room")
	return n
}

func (m *model) send(to pubsub.Place, groups ...*modelGroup) {
	m.t.Helper()
	m.next++
	msg := pubsub.Message{ID: fmt.Sprint(m.next), Payload: make([]byte, m.rng.IntN(2000))}
	if m.rng.IntN(2) == 0 {
		msg.Key = fmt.Sprint("k", m.rng.IntN(5))
	}
	switch m.rng.IntN(20) {
	case 0:
		msg.Delay = time.Duration(m.rng.IntN(5000)) * time.Millisecond
	case 1:
		msg.Priority = uint8(1 + m.rng.IntN(9))
	}
	out := pubsub.Out{To: to, Msg: &msg, Dedup: pubsub.Dedup{byte(m.next), byte(m.next >> 8), 1}}
	if r := m.c.send(out); r.Err != nil {
		if code, _ := m.c.Classify(r.Err); code != pubsub.ErrExhausted {
			m.t.Fatal(r.Err)
		}
		m.full++
		return
	}
	if m.rng.IntN(10) == 0 { // once more, as after a broken connection
		out.Again = true
		if r := m.c.send(out); r.Err != nil {
			m.t.Fatal(r.Err)
		}
	}
	for _, g := range groups {
		g.open[msg.ID] = true
		if to.Kind == pubsub.PlaceRetry {
			g.own[msg.ID] = true
		}
	}
}

func (m *model) receive(g *modelGroup, n int) []pubsub.Record {
	m.t.Helper()
	got := g.r.take(n)
	for _, r := range got {
		if !g.open[r.Msg.ID] {
			m.t.Errorf("group %s got %s, which it has settled or never had", g.name, r.Msg.ID)
		}
		if slices.ContainsFunc(g.held, func(h pubsub.Record) bool { return h.Msg.ID == r.Msg.ID }) {
			m.t.Errorf("group %s got %s, which it holds", g.name, r.Msg.ID)
		}
	}
	return got
}

// settle settles one of what a group holds, in any way.
func (m *model) settle(g *modelGroup) {
	m.t.Helper()
	for n := m.rng.IntN(8); n > 0 && len(g.held) > 0; n-- {
		i := m.rng.IntN(len(g.held))
		switch r := g.held[i]; m.rng.IntN(12) {
		case 0:
			g.r.settle(pubsub.SettleRelease, r)
		case 1:
			list := []pubsub.Settlement{{Token: r.Token, As: pubsub.SettleRetryIn, Delay: time.Duration(m.rng.IntN(3000)) * time.Millisecond, Failed: r.Failed + 1}}
			if err := g.r.Settle(m.t.Context(), list, make([]error, 1)); err != nil {
				m.t.Fatal(err)
			}
		default:
			m.done(g, i)
			continue
		}
		g.held = slices.Delete(g.held, i, i+1)
	}
}

func (m *model) done(g *modelGroup, i int) {
	m.t.Helper()
	r := g.held[i]
	g.r.settle(pubsub.SettleAck, r)
	g.held = slices.Delete(g.held, i, i+1)
	delete(g.open, r.Msg.ID)
	delete(g.own, r.Msg.ID)
}

// restart ends a group's member, which gives all back, moves the group sometimes, and starts another.
func (m *model) restart(g *modelGroup) {
	m.t.Helper()
	if err := g.r.Close(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
	g.held = nil
	to, kept := pubsub.FromNow(), []string(nil)
	switch m.rng.IntN(4) {
	case 0:
	case 1:
		to = pubsub.FromEarliest()
		kept = ids(m.c.browse(pubsub.Place{Topic: modelTopic}, pubsub.Position{}))
	default:
		g.r = m.c.open(pubsub.Place{Topic: modelTopic, Group: g.name}, g.order)
		return
	}
	if err := m.c.Driver.(pubsub.Seeker).Seek(m.t.Context(), modelTopic, g.name, to); err != nil {
		m.t.Fatal(err)
	}
	g.open = maps.Clone(g.own)
	for _, id := range kept {
		g.open[id] = true
	}
	g.r = m.c.open(pubsub.Place{Topic: modelTopic, Group: g.name}, g.order)
}

func (m *model) checkLag(g *modelGroup) {
	m.t.Helper()
	lag, err := m.c.Driver.(pubsub.Lagger).Lag(m.t.Context(), modelTopic, g.name)
	if err != nil || lag.Messages != int64(len(g.open)) || lag.Oldest.IsZero() != (len(g.open) == 0) {
		m.t.Fatalf("group %s has a lag of %+v %v, want %d messages", g.name, lag, err, len(g.open))
	}
}
