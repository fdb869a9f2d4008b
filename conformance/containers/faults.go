package containers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/omnibus-go/omnibus/conformance"
)

const (
	slowness  = 100 * time.Millisecond // of every byte, in each direction
	probeTime = 10 * time.Second       // for a node's first words
	briefly   = 300 * time.Millisecond // for those of one that says nothing
	settles   = 2 * time.Second        // at most, until what was under way when a fault struck has arrived
	undoTime  = 10 * time.Second       // for taking back what struck only some nodes
)

// Faults is what can be done to the broker, for [conformance.Harness]: the network of all nodes, their processes, and in a cluster the
// process and the data of each. Kill and Restart of all nodes are not among them: the Harness has these by name. Where names are given it is those
// alone. There are none if the broker was given by URL.
func (b *Broker) Faults(names ...string) []conformance.Fault {
	if !b.Ours() {
		return nil
	}
	all := b.faults()
	if len(b.nodes) > 1 {
		all = append(all, b.faultsOfNodes()...)
	}
	return slices.DeleteFunc(all, func(f conformance.Fault) bool { return len(names) > 0 && !slices.Contains(names, f.Name) })
}

func (b *Broker) faultsOfNodes() (all []conformance.Fault) {
	for _, n := range b.nodes {
		all = append(all,
			conformance.Fault{Name: "kill " + n.name, Strike: b.killed(n, n.Kill)},
			conformance.Fault{Name: "pause " + n.name, Strike: paused([]*Node{n})},
			conformance.Fault{Name: "wipe " + n.name, Strike: b.killed(n, n.Wipe), Loses: true},
		)
	}
	return all
}

// Replicas is what [conformance.Harness.Replicas] wants of a topic that the node of that name leads: a fault that freezes all the others, and one
// that kills the leader and removes what it has stored. It fails if there is no such node, or no other.
func (b *Broker) Replicas(leader string) (pauseFollowers, wipeLeader conformance.Fault, err error) {
	var followers []*Node
	for _, f := range b.Faults() {
		if f.Name == "wipe "+leader {
			wipeLeader = f
		}
	}
	for _, n := range b.nodes {
		if n.name != leader {
			followers = append(followers, n)
		}
	}
	if wipeLeader.Strike == nil {
		return conformance.Fault{}, conformance.Fault{}, fmt.Errorf("containers: the leader is %q, which is none of several nodes", leader)
	}
	return conformance.Fault{Name: "pause the followers", Strike: paused(followers)}, wipeLeader, nil
}

// faults are those that strike all nodes.
func (b *Broker) faults() []conformance.Fault {
	return []conformance.Fault{
		{Name: "pause", Strike: paused(b.nodes)},
		{Name: "black hole", Strike: b.swallowed((*Node).BlackHole)},
		{Name: "half-open", Strike: b.swallowed((*Node).HalfOpen)},
		{Name: "cut", Strike: func(ctx context.Context) (ender, error) {
			if err := b.Cut(); err != nil {
				return nil, errors.Join(err, b.Mend())
			}
			refused := refuse(ctx, b.nodes)
			return func(context.Context) (bool, error) { return refused, b.Mend() }, nil
		}},
		{Name: "latency", Strike: func(ctx context.Context) (ender, error) {
			if err := b.Latency(slowness); err != nil {
				return nil, errors.Join(err, b.Mend())
			}
			slow := true
			for _, n := range b.nodes {
				took, err := n.greet(ctx, probeTime)
				slow = slow && err == nil && took >= slowness
			}
			return func(context.Context) (bool, error) { return slow, b.Mend() }, nil
		}},
	}
}

// An ender ends a fault, and says whether it had an effect.
type ender = func(context.Context) (effect bool, err error)

// killed ends one process; it comes back as another one.
func (b *Broker) killed(n *Node, kill func(context.Context) error) func(context.Context) (ender, error) {
	return func(ctx context.Context) (ender, error) {
		before, err := n.PID(ctx)
		if err != nil {
			return nil, err
		}
		if err := kill(ctx); err != nil {
			return nil, errors.Join(err, undo(ctx, b.Restart))
		}
		return func(ctx context.Context) (bool, error) {
			if err := b.Restart(ctx); err != nil {
				return false, err
			}
			after, err := n.PID(ctx)
			return before != 0 && after != 0 && after != before, err
		}, nil
	}
}

// paused freezes processes: who connects to them hears nothing, and the daemon calls them paused until they go on.
func paused(nodes []*Node) func(context.Context) (ender, error) {
	return func(ctx context.Context) (ender, error) {
		if err := each(nodes, func(n *Node) error { return n.Pause(ctx) }); err != nil {
			return nil, errors.Join(err, undo(ctx, func(ctx context.Context) error {
				struck, err := pausedOf(ctx, nodes)
				return errors.Join(err, each(struck, func(n *Node) error { return n.Unpause(ctx) }))
			}))
		}
		mute := silent(ctx, nodes)
		return func(ctx context.Context) (bool, error) {
			frozen, err := pausedOf(ctx, nodes)
			return mute && len(frozen) == len(nodes), errors.Join(err, each(nodes, func(n *Node) error { return n.Unpause(ctx) }))
		}, nil
	}
}

// swallowed lets bytes vanish: the counter of those grows, and nothing more comes from the nodes.
func (b *Broker) swallowed(how func(*Node) error) func(context.Context) (ender, error) {
	return func(ctx context.Context) (ender, error) {
		if err := b.all(how); err != nil {
			return nil, errors.Join(err, b.Mend())
		}
		b.settle(ctx)
		before := b.Traffic()
		return func(context.Context) (bool, error) {
			after := b.Traffic()
			return after.Down == before.Down && after.Dropped > before.Dropped, b.Mend()
		}, nil
	}
}

// undo takes back what has struck only a part, also when it is ctx that has ended the rest.
func undo(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	return f(ctx)
}

// refuse says whether every node's address refuses a connection. That a node does not answer in time is no refusal.
func refuse(ctx context.Context, nodes []*Node) bool {
	return !slices.ContainsFunc(nodes, func(n *Node) bool {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", n.Addr())
		if err == nil {
			_ = conn.Close()
		}
		return !errors.Is(err, syscall.ECONNREFUSED)
	})
}

// silent says whether every node lets who connects to it wait in vain. A connection that breaks is no silence.
func silent(ctx context.Context, nodes []*Node) bool {
	return !slices.ContainsFunc(nodes, func(n *Node) bool {
		took, err := n.greet(ctx, briefly)
		return err == nil || took < briefly
	})
}

// pausedOf returns those of the nodes whose process the daemon has frozen.
func pausedOf(ctx context.Context, nodes []*Node) (frozen []*Node, err error) {
	err = each(nodes, func(n *Node) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		s, err := n.state(ctx)
		if err == nil && s.Paused {
			frozen = append(frozen, n)
		}
		return err
	})
	return frozen, err
}

// settle waits until the proxies hand on nothing that got past a valve before it was shut: not long, unless a client does not read.
func (b *Broker) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settles)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for slices.ContainsFunc(b.nodes, func(n *Node) bool { return n.proxy.down.moving.Load() > 0 }) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return // what is still to come shows in the counters, as no effect
		}
	}
}

// greet connects as a client and waits for the broker's first words.
func (n *Node) greet(ctx context.Context, limit time.Duration) (took time.Duration, err error) {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, err = n.engine.kind.version(ctx, n.Addr())
	return time.Since(begin), err
}

// each does f to nodes one after another, and to all of them whatever it returns.
func each(nodes []*Node, f func(*Node) error) error {
	var errs []error
	for _, n := range nodes {
		errs = append(errs, f(n))
	}
	return errors.Join(errs...)
}
