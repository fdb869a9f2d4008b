package conformance

import (
	"fmt"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/conformance/internal/history"
	"github.com/omnibus-go/omnibus/conformance/internal/schedule"
	"github.com/omnibus-go/omnibus/pubsub"
)

// schedulesOfFaults runs schedules that follow from the seed. One whose faults found nothing in flight does not count, and fewer than four
// in five that count fail the run.
func schedulesOfFaults(e *env) {
	const schedules = 10
	seeds := make([]uint64, schedules) // drawn before anything else can throw the dice
	for i := range seeds {
		seeds[i] = uint64(e.rng.below(1 << 30))
	}
	kinds := []schedule.Kind{schedule.Reset, schedule.BlackHole, schedule.Latency, schedule.LostAnswer, schedule.KillConsumer}
	if e.h.Kill != nil {
		kinds = append(kinds, schedule.Restart)
	}
	counted := 0
	for i, seed := range seeds {
		st := &storm{e: e, seed: seed, faults: schedule.New(seed, stormLength, stormMembers, kinds...)}
		hit := st.run()
		e.Logf("schedule %d: %v; %d of them in flight", i, st.faults, hit)
		if hit == len(st.faults) {
			counted++
		}
		if e.Failed() {
			e.Fatalf("that was schedule %d: %v", i, st.faults)
		}
	}
	if counted*5 < schedules*4 {
		e.Errorf("the faults of %d of %d schedules hit publishes and unsettled deliveries in flight, want four in five", counted, schedules)
	}
}

const (
	stormLength   = 3 * time.Second
	stormMembers  = 2
	stormInFlight = 32
	stormPending  = 64
	stormLatency  = 10 * time.Millisecond // of every answer: then something is in flight
)

// A storm is one schedule and what it strikes: a publisher that never rests, and a group with two members.
type storm struct {
	e      *env
	seed   uint64
	faults schedule.Schedule

	l       *ledger
	sub     pubsub.Subscription
	pub     *process
	members []*process
	quiet   sync.WaitGroup // faults that last
}

// run says how many faults hit publishes and unsettled deliveries.
func (st *storm) run() (hit int) {
	e := st.e
	st.pub, st.l = e.open(), e.ledger()
	if exclusive().Open(e.caps) {
		st.l.ordered("g")
	}
	topic := e.topic(fmt.Sprintf("storm-%d", st.seed))
	st.sub = e.sub(topic, "g")
	st.sub.Concurrency, st.sub.MaxInFlight = 4, stormInFlight
	spec := pubsub.TopicSpec{Name: topic}
	if e.caps.Partitions {
		spec.Partitions = 4
	}
	e.must(st.pub.Ensure(e.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{spec}, Groups: []pubsub.Subscription{st.sub}}), "ensure")
	for range stormMembers {
		st.join()
	}
	pub, err := st.pub.Publisher(pubsub.PublisherOptions{MaxPending: stormPending})
	e.must(err, "make a publisher")
	st.l.mustPublish(pub, topic, st.l.messages(30, 8)...)
	st.pub.link.slow(4 * stormLatency)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				st.l.publish(pub, topic, st.l.messages(24, 8)...)
			}
		}
	}()
	begin := time.Now()
	for _, f := range st.faults {
		time.Sleep(time.Until(begin.Add(f.At)))
		if st.strike(f) {
			hit++
		}
	}
	time.Sleep(time.Until(begin.Add(stormLength)))
	st.quiet.Wait()
	close(stop)
	<-stopped
	st.pub.link.slow(0)
	st.l.strikes("g", len(st.faults), history.Load{Members: stormMembers, MaxInFlight: stormInFlight, Publishers: 1, MaxPending: stormPending})
	st.l.mustPublish(pub, topic, st.l.messages(8, 8)...)
	st.l.await("g")
	st.l.verify()
	for _, p := range append(st.members, st.pub) {
		e.must(p.Close(), "close %s", p.name)
	}
	return hit
}

func (st *storm) join() {
	p := st.e.open()
	p.link.slow(stormLatency)
	st.e.subscribe(p, st.sub, st.l.handler(p, "g", st.e.busy(20*time.Millisecond)))
	st.members = append(st.members, p)
}

// inFlight says whether there are publishes without an answer and deliveries that are not settled.
func (st *storm) inFlight() bool {
	held := 0
	for _, p := range st.members {
		_, n, _, _ := p.link.load()
		held += n
	}
	return st.l.publishing() > 0 && held > 0
}

// strike lets a fault happen, as soon as there is something to hit. It says whether there was.
func (st *storm) strike(f schedule.Fault) (hit bool) {
	e := st.e
	hit = e.until(stormLength/10, st.inFlight)
	all := append([]*process{st.pub}, st.members...)
	switch f.Kind {
	case schedule.Reset:
		for _, p := range st.members {
			st.l.forget(p) // what runs now is no longer theirs
			hit = p.link.cut() > 0 && hit
		}
		st.breakPublisher(cutBefore)
	case schedule.LostAnswer:
		st.breakPublisher(cutAfter)
	case schedule.BlackHole:
		for _, p := range all {
			st.quiet.Go(func() {
				resume := p.link.stall()
				time.Sleep(f.For)
				resume()
			})
		}
	case schedule.Latency:
		for _, p := range all {
			st.quiet.Go(func() {
				usual := p.link.slow(10 * stormLatency)
				time.Sleep(f.For)
				p.link.slow(usual)
			})
		}
	case schedule.KillConsumer:
		st.members[f.Who].kill()
		st.members = append(st.members[:f.Who:f.Who], st.members[f.Who+1:]...)
		st.join()
	case schedule.Restart:
		for _, p := range st.members {
			st.l.forget(p)
		}
		e.must(e.h.Kill(e.Context()), "kill the broker")
		if err := st.pub.Ping(e.Context()); err == nil {
			e.Fatalf(setupPrefix + "the broker answers after Kill")
		}
		e.must(e.h.Start(e.Context()), "start the broker")
	}
	return hit
}

// breakPublisher ends the publisher's session with its next message.
func (st *storm) breakPublisher(how actionKind) {
	st.pub.link.faults(func(pubsub.Out) action {
		st.pub.link.faults(nil)
		return action{kind: how}
	})
}
