package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

// whole says that this is `make soak`: there is time for what takes minutes.
func whole() bool { return os.Getenv("MINUTES") != "" }

// TestMembersComeAndGo lets a member join and leave a group again and again, while another one, a process of its own, is killed with SIGKILL and started
// again: nothing is lost, nothing comes again but what the dead had in flight, and between two such events at least half of what the group does undisturbed
// is done. The same with a handler of one member that is stuck for ever.
func TestMembersComeAndGo(t *testing.T) {
	s := startServer(t, "default")
	list := []churn{{rounds: 2, join: 2500 * time.Millisecond, kill: 3 * time.Second, stuck: true}}
	if whole() {
		list = []churn{{rounds: 10, join: 5 * time.Second, kill: 6 * time.Second}, {rounds: 10, join: 5 * time.Second, kill: 6 * time.Second, stuck: true}}
	}
	for _, c := range list {
		name := "sound"
		if c.stuck {
			name = "stuck"
		}
		t.Run(name, func(t *testing.T) {
			topic := unique("churn")
			address := s.address(t, url.Values{"session_timeout": {"2s"}})
			f := fate{URL: address, Topic: topic, Group: "g", Concurrency: churnWorkers, MaxInFlight: churnInFlight, AckWait: 3 * time.Second, Busy: churnBusy}
			pub := s.open(t)
			spec := pubsub.TopicSpec{Name: topic, Partitions: churnParts}
			if err := pub.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{spec}, Groups: []pubsub.Subscription{f.subscription()}}); err != nil {
				t.Fatal(err)
			}
			g := &churned{times: map[string]int{}, release: make(chan struct{})}
			release := sync.OnceFunc(func() { close(g.release) })
			join := func() (*pubsub.Broker, error) {
				b, err := kafka.Open(t.Context(), address, nil)
				if err != nil {
					return nil, err
				}
				if _, err := b.Subscribe(t.Context(), f.subscription(), g.handle); err != nil {
					return nil, errors.Join(err, b.Close())
				}
				return b, nil
			}
			hear := func(word, rest string) {
				if word == "done" {
					g.did(rest)
				}
			}
			feeding, enough := context.WithCancel(t.Context())
			fed := make(chan error, 1)
			go func() { fed <- g.feed(feeding, pub, topic) }()
			defer enough()
			for range churnMembers {
				b, err := join()
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
			}
			defer release() // before that
			victim := f.start(t, "", hear)
			if c.stuck {
				c.stick(t, g, pub, topic)
			}

			const calm = 2000 * time.Millisecond
			poll.Until(t, "the first messages", func() bool { return g.done() > 200 })
			before, began := g.done(), time.Now()
			time.Sleep(calm) // what is done meanwhile is the measure
			undisturbed := float64(g.done()-before) / time.Since(began).Seconds()

			var both sync.WaitGroup
			both.Go(func() {
				for range c.rounds {
					g.note("joins")
					b, err := join()
					if err != nil {
						t.Errorf("joining: %v", err)
						return
					}
					time.Sleep(c.join / 2)
					g.note("leaves")
					if err := b.Close(); err != nil {
						t.Errorf("leaving: %v", err)
					}
					time.Sleep(c.join - c.join/2)
				}
			})
			for range c.rounds {
				time.Sleep(c.kill)
				g.note("killed")
				victim.kill(t)
				victim = f.start(t, "", hear)
			}
			both.Wait()
			g.note("end")
			enough()
			if err := <-fed; err != nil {
				t.Fatal(err)
			}
			release()
			poll.Until(t, "all that was published", func() bool { return g.done() == g.sent })
			victim.quit(t)
			c.judge(t, g, undisturbed)
		})
	}
}

// A churn is what happens to a group.
type churn struct {
	rounds     int
	join, kill time.Duration // a member comes so often, and leaves halfway; another one is killed so often
	stuck      bool
}

const (
	churnParts    = 20
	churnMembers  = 3 // that stay
	churnStuck    = 4 // the partition where a message is stuck: the last that the first of four members has, which gives it up when there are five
	churnWorkers  = 6
	churnInFlight = 64
	churnBusy     = 50 * time.Millisecond // of a handler: what the group does depends on it alone
	churnBacklog  = 40                    // messages that wait in a partition at least: there is always something to do
	churnKeys     = 25                    // of a partition
)

// A churned is what happened in a group.
type churned struct {
	mu      sync.Mutex
	sent    int
	waits   [churnParts]int // of those that were sent: not handled
	times   map[string]int  // how often a message was handled, by its id
	again   int             // handled once more
	events  []churnEvent
	release chan struct{} // closed at the end: then nothing is stuck
	stuck   atomic.Bool
}

type churnEvent struct {
	what string
	at   time.Time
	done int
}

// did counts a message that was handled. Its id begins with its partition.
func (g *churned) did(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.times[id]++; g.times[id] > 1 {
		g.again++
		return
	}
	var p int
	if n, _ := fmt.Sscanf(id, "%d/", &p); n == 1 {
		g.waits[p]--
	}
}

func (g *churned) done() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.times)
}

// note says that something has happened to the group.
func (g *churned) note(what string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.events = append(g.events, churnEvent{what, time.Now(), len(g.times)})
}

func (g *churned) handle(_ context.Context, d *pubsub.Delivery) error {
	if d.Type == "stuck" && g.stuck.CompareAndSwap(false, true) {
		<-g.release // whatever ctx says
	}
	time.Sleep(churnBusy)
	g.did(d.ID)
	return nil
}

// feed publishes as long as ctx lives: what waits to be handled is never much, and never nothing, in each partition.
func (g *churned) feed(ctx context.Context, b *pubsub.Broker, topic string) error {
	var keys [churnParts][]string
	for i, lack := 0, churnParts; lack > 0; i++ {
		key := fmt.Sprint("key", i)
		p := kafka.PartitionOf(key, churnParts)
		if keys[p] = append(keys[p], key); len(keys[p]) == churnKeys {
			lack--
		}
	}
	var sent [churnParts]int
	for ctx.Err() == nil {
		var batch []pubsub.Message
		g.mu.Lock()
		for p := range sent {
			if g.waits[p] >= churnBacklog {
				continue
			}
			for range churnBacklog {
				batch = append(batch, pubsub.Message{ID: fmt.Sprintf("%d/%d", p, sent[p]), Key: keys[p][sent[p]%churnKeys]})
				sent[p]++
			}
			g.waits[p] += churnBacklog
		}
		g.sent += len(batch)
		g.mu.Unlock()
		if len(batch) == 0 {
			time.Sleep(5 * time.Millisecond) // enough waits in each partition
		} else if err := b.PublishBatch(context.WithoutCancel(ctx), topic, batch); err != nil {
			return err
		}
	}
	return nil
}

// stick publishes the message whose handler is stuck, and waits for that.
func (c churn) stick(t *testing.T, g *churned, b *pubsub.Broker, topic string) {
	t.Helper()
	key := ""
	for i := 0; key == ""; i++ {
		if k := fmt.Sprint("stuck", i); kafka.PartitionOf(k, churnParts) == churnStuck {
			key = k
		}
	}
	if err := b.Publish(t.Context(), topic, pubsub.Message{ID: "stuck", Key: key, Type: "stuck"}); err != nil {
		t.Fatal(err)
	}
	g.mu.Lock()
	g.sent++
	g.mu.Unlock()
	poll.Until(t, "the message that gets stuck", g.stuck.Load)
}

func (c churn) judge(t *testing.T, g *churned, undisturbed float64) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	t.Logf("undisturbed %.0f messages/s; %d messages, %d came again", undisturbed, g.sent, g.again)
	most := c.rounds * churnInFlight
	if c.stuck {
		most++ // that one
	}
	if g.again > most {
		t.Errorf("%d messages came again, at most %d were in flight when a process was killed", g.again, most)
	}
	slices.SortFunc(g.events, func(a, b churnEvent) int { return a.at.Compare(b.at) })
	last := g.events[0]
	for _, e := range g.events[1:] {
		between := e.at.Sub(last.at)
		if between < time.Second { // counted with the next
			continue
		}
		rate := float64(e.done-last.done) / between.Seconds()
		t.Logf("%-6s for %4.1f s: %.0f messages/s", last.what, between.Seconds(), rate)
		if rate < undisturbed/2 {
			t.Errorf("after a member %s %.0f messages/s were handled, undisturbed %.0f", last.what, rate, undisturbed)
		}
		last = e
	}
}
