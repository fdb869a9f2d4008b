package conformance

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/conformance/internal/history"
	"github.com/omnibus-go/omnibus/conformance/internal/schedule"
	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	stormMembers  = 2
	stormInFlight = 32
	stormPending  = 64
	stormBacklog  = 300                   // the publisher waits for the members, who may be slow: what is awaited at the end is bounded
	stormBusy     = 20 * time.Millisecond // at most, in a handler
	stormLatency  = 10 * time.Millisecond // of every answer: then something is in flight
	stormAckWait  = 2 * time.Second       // some faults last longer
	stormGroup    = "g"
)

// A storm is one schedule and what it strikes: a publisher that never rests, and a group with two members. Where the harness has an
// address one of the members is a process of its own, and that is the one which gets killed.
type storm struct {
	e      *env
	length time.Duration
	faults schedule.Schedule
	own    map[schedule.Kind]Fault // the harness's

	l       *ledger
	sub     pubsub.Subscription
	pub     *process
	members []*process
	apart   *member // nil = all members are in this process

	struck []SoakFault
	whole  bool // it has come to its end: what nobody has handled by now is lost
	opened int  // sessions that are no reconnects
	ended  int  // sessions of members that are gone
}

func newStorm(e *env, seed uint64, length time.Duration, least int) *storm {
	kinds, own := kindsOfFaults(e)
	st := &storm{e: e, length: length, own: own, faults: schedule.New(seed, length, least, stormMembers, kinds...), l: e.ledger()}
	st.sub = e.sub(e.topic(fmt.Sprintf("storm-%d", seed)), stormGroup)
	st.sub.Concurrency, st.sub.MaxInFlight, st.sub.AckWait = 4, stormInFlight, stormAckWait
	return st
}

func (st *storm) run() {
	e, topic := st.e, st.sub.Topic
	st.pub = e.open()
	if exclusive().Open(e.caps) {
		st.l.ordered(stormGroup)
	}
	st.l.strikes(stormGroup, len(st.faults), history.Load{Members: stormMembers, MaxInFlight: stormInFlight, Publishers: 1, MaxPending: stormPending})
	spec := pubsub.TopicSpec{Name: topic}
	if e.caps.Partitions {
		spec.Partitions = 4
	}
	e.must(st.pub.Ensure(e.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{spec}, Groups: []pubsub.Subscription{st.sub}}), "ensure")
	together := stormMembers
	if e.h.Address != "" {
		st.joinApart()
		together--
	}
	for range together {
		st.join()
	}
	pub, err := st.pub.Publisher(pubsub.PublisherOptions{MaxPending: stormPending})
	e.must(err, "make a publisher")
	st.l.mustPublish(pub, topic, st.l.messages(30, 8)...)
	st.opened += st.pub.link.openings()
	st.pub.link.slow(4 * stormLatency)
	stop, stopped := make(chan struct{}), make(chan struct{})
	halt := sync.OnceFunc(func() { close(stop); <-stopped })
	e.Cleanup(halt) // should the storm end early
	go func() {
		defer close(stopped)
		for e.Context().Err() == nil && !e.closed(0, stop) {
			if st.l.backlog(stormGroup) > stormBacklog {
				e.closed(stormLatency, stop)
				continue
			}
			st.l.publish(pub, topic, st.l.messages(24, 8)...)
		}
	}()
	begin := time.Now()
	for _, f := range st.faults {
		if e.closed(time.Until(begin.Add(f.At)), nil); e.Context().Err() != nil {
			break
		}
		st.strike(f, begin)
	}
	e.closed(time.Until(begin.Add(st.length)), nil)
	halt()
	st.pub.link.slow(0)
	st.l.mustPublish(pub, topic, st.l.messages(8, 8)...)
	st.whole = true
	st.l.await(stormGroup)
	st.l.verify()
	for _, p := range append(st.members, st.pub) {
		st.ended += p.link.openings()
		e.must(p.Close(), "close %s", p.name)
	}
	if st.apart != nil {
		st.apart.close()
		st.ended += st.apart.sessions()
	}
}

// reconnects is how many sessions were opened again.
func (st *storm) reconnects() int { return st.ended - st.opened }

func (st *storm) join() {
	p := st.e.open()
	p.link.slow(stormLatency)
	st.e.subscribe(p, st.sub, st.l.handler(p, stormGroup, st.e.busy(stormBusy)))
	st.opened += p.link.openings()
	st.members = append(st.members, p)
}

func (st *storm) joinApart() {
	st.apart = startMember(st.e, st.l, st.sub)
	st.opened += st.apart.sessions()
}

// inFlight is how many publishes without an answer and deliveries that are not settled there are; 0 if one of both is not.
func (st *storm) inFlight() int {
	held := 0
	for _, p := range st.members {
		held += p.held()
	}
	if st.apart != nil {
		held += st.apart.held()
	}
	return both(st.l.publishing(), held)
}

// inFlightOf is inFlight, of deliveries only those that the member has which killConsumer kills.
func (st *storm) inFlightOf(who int) int {
	if st.apart != nil {
		return both(st.l.publishing(), st.apart.held())
	}
	return both(st.l.publishing(), st.victim(who).held())
}

// victim is the who-th member, or another one if that stands by and holds nothing.
func (st *storm) victim(who int) *process {
	for i := range st.members {
		if p := st.members[(who+i)%len(st.members)]; p.held() > 0 {
			return p
		}
	}
	return st.members[who]
}

// both is a sum of which no part is 0, else 0.
func both(publishes, deliveries int) int {
	if publishes == 0 || deliveries == 0 {
		return 0
	}
	return publishes + deliveries
}

// strike lets a fault happen, as soon as there is something to hit, and ends it.
func (st *storm) strike(f schedule.Fault, begin time.Time) {
	hits := st.inFlight
	if f.Kind == schedule.KillConsumer {
		hits = func() int { return st.inFlightOf(f.Who) }
	}
	// What the fault before broke takes its time to mend; then leases, sessions and pins that nobody holds any more are to run out.
	st.e.until(st.recovery()+4*stormAckWait, func() bool { return hits() > 0 })
	hit := SoakFault{Kind: string(f.Kind), AtMS: time.Since(begin).Milliseconds(), InFlight: hits()}
	mend := st.start(f)
	hit.TookEffect = mend()
	st.struck = append(st.struck, hit)
}

// recovery is how long what a fault broke takes to mend: the publisher whose session is to break may be without one.
func (st *storm) recovery() time.Duration { return cmp.Or(st.e.h.Recovery, 2*time.Second) }

// start begins a fault. What it returns waits as long as it lasts, ends it, and says whether it had an effect.
func (st *storm) start(f schedule.Fault) (mend func() bool) {
	e := st.e
	lasts := func() { st.e.closed(f.For, nil) }
	all := append([]*process{st.pub}, st.members...)
	late := func() (n int) {
		for _, p := range all {
			n += p.link.late()
		}
		return n
	}
	switch f.Kind {
	case schedule.Reset:
		st.forgetHere()
		cut := 0
		for _, p := range st.members {
			cut += p.link.cut()
		}
		broken := st.breakPublisher(cutBefore)
		return func() bool { return e.until(st.recovery(), broken) && cut > 0 }
	case schedule.LostAnswer:
		broken := st.breakPublisher(cutAfter)
		return func() bool { return e.until(st.recovery(), broken) }
	case schedule.BlackHole:
		st.forgetHere()
		var resume []func()
		for _, p := range all {
			resume = append(resume, p.link.stall())
		}
		before := late()
		return func() bool {
			lasts()
			held := late() > before
			st.forgetHere()
			for _, f := range resume {
				f()
			}
			return held
		}
	case schedule.Latency:
		var usual []time.Duration
		for _, p := range all {
			usual = append(usual, p.link.slow(10*stormLatency))
		}
		before := late()
		return func() bool {
			lasts()
			for i, p := range all {
				p.link.slow(usual[i])
			}
			return late() > before
		}
	case schedule.KillConsumer:
		return st.killConsumer(f.Who)
	case schedule.Restart:
		st.forget()
		e.must(e.h.Kill(e.Context()), "kill the broker")
		return func() bool {
			refused := st.pub.Ping(e.Context()) != nil
			lasts()
			st.forget()
			e.must(e.h.Start(e.Context()), "start the broker")
			return refused
		}
	}
	fault := st.own[f.Kind]
	st.forget()
	undo, err := fault.Strike(e.Context())
	e.must(err, "%s", f.Kind)
	return func() bool {
		lasts()
		st.forget()
		effect, err := undo(e.Context())
		e.must(err, "end %s", f.Kind)
		return effect
	}
}

// killConsumer kills the member that is a process, else the who-th, and lets another one join.
func (st *storm) killConsumer(who int) (mend func() bool) {
	if st.apart != nil {
		killed := st.apart.kill()
		st.ended += st.apart.sessions()
		return func() bool {
			st.joinApart()
			return killed
		}
	}
	p := st.victim(who)
	p.kill()
	st.ended += p.link.openings()
	st.members = slices.DeleteFunc(st.members, func(o *process) bool { return o == p })
	return func() bool {
		st.join()
		return p.link.isDead()
	}
}

// forget says that all members have lost what they held.
func (st *storm) forget() {
	st.forgetHere()
	if st.apart != nil {
		st.l.forgetMember(st.apart.name)
	}
}

// forgetHere says it of the members in this process: those whose links a fault can touch.
func (st *storm) forgetHere() {
	for _, p := range st.members {
		st.l.forget(p)
	}
}

// breakPublisher ends the publisher's session with its next message. What it returns says whether it has.
func (st *storm) breakPublisher(how actionKind) (broken func() bool) {
	var done atomic.Bool
	st.pub.link.faults(func(pubsub.Out) action {
		st.pub.link.faults(nil)
		done.Store(true)
		return action{kind: how}
	})
	return done.Load
}

// describeFault shows what was struck in one line.
func describeFault(f SoakFault) string {
	state := fmt.Sprintf("%d in flight", f.InFlight)
	if !f.TookEffect {
		state = "no effect"
	}
	return fmt.Sprintf("%s at %v (%s)", f.Kind, time.Duration(f.AtMS)*time.Millisecond, state)
}
