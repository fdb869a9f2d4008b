package containers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"
)

// A Node is one process of a broker, in a container, with a proxy between it and its clients.
type Node struct {
	engine *engine
	plan   nodePlan
	name   string
	files  string // the name of the broker's folder
	proxy  *proxy

	mu   sync.Mutex // one change of the container at a time
	id   string     // of the container; "" when there is none
	died int        // the process id that Kill ended last
	anew bool       // it has lost its data, and what the others can give back it may not have yet
}

// Name is the node's own name: "nats-0".
func (n *Node) Name() string { return n.name }

// Addr is where the node's clients connect: host and port of its proxy.
func (n *Node) Addr() string { return local(n.plan.front) }

// Admin is where the node answers to operators, past its proxy: host and port of NATS' monitoring, of RabbitMQ's management, which has TLS
// where clients have it, or of Kafka's listener for brokers.
func (n *Node) Admin() string { return local(n.plan.admin.outside) }

// PID is the process id on the daemon's host; 0 while the node does not run.
func (n *Node) PID(ctx context.Context) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s, err := n.state(ctx)
	if err != nil {
		return 0, err
	}
	return s.Pid, nil
}

// Kill ends the process as SIGKILL does. When it returns nil the process is gone. It fails if the node did not run.
func (n *Node) Kill(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.kill(ctx)
}

func (n *Node) kill(ctx context.Context) error {
	before, err := n.state(ctx)
	if err != nil {
		return err
	}
	if !before.Running {
		return n.errorf("there is no process to kill")
	}
	gone := n.engine.docker.ContainerWait(ctx, n.id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	if _, err := n.engine.docker.ContainerKill(ctx, n.id, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		return n.errorf("kill: %w", err)
	}
	select {
	case <-gone.Result:
	case err := <-gone.Error:
		return n.errorf("wait for the end of a killed process: %w", err)
	}
	after, err := n.state(ctx)
	if err != nil {
		return err
	}
	if after.Running || after.ExitCode != 128+9 {
		return n.errorf("the process was not killed: %s, exit code %d", after.Status, after.ExitCode)
	}
	n.died = before.Pid
	return nil
}

// Restart starts the node if it does not run, on the same ports with the data that is left, and returns once it can serve, after at
// most a minute where ctx has no deadline. A node of a cluster cannot serve alone: then use [Broker.Restart].
func (n *Node) Restart(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := n.launch(ctx); err != nil {
		return err
	}
	return n.waitReady(ctx)
}

// Pause freezes the process.
func (n *Node) Pause(ctx context.Context) error {
	const freezeTries = 5 // on a machine under load one in some hundreds fails
	n.mu.Lock()
	defer n.mu.Unlock()
	for tries := 1; ; tries++ {
		_, err := n.engine.docker.ContainerPause(ctx, n.id, client.ContainerPauseOptions{})
		switch {
		case err == nil:
			return nil
		case tries == freezeTries || !strings.Contains(err.Error(), "unable to freeze"): // the runtime's words where some thread was not caught; it then lets all go on
			return n.errorf("pause: %w", err)
		}
	}
}

// Unpause lets the process go on.
func (n *Node) Unpause(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, err := n.engine.docker.ContainerUnpause(ctx, n.id, client.ContainerUnpauseOptions{}); err != nil {
		return n.errorf("unpause: %w", err)
	}
	return nil
}

// Wipe kills the process, if there is one, and removes all that it had stored. Restart brings the node back empty.
func (n *Node) Wipe(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	s, err := n.state(ctx)
	if err != nil {
		return err
	}
	if s.Running {
		if err := n.kill(ctx); err != nil {
			return err
		}
	}
	if err := n.removeLocked(ctx); err != nil { // what it stored lies in the container
		return err
	}
	n.plan.env = maps.Clone(n.plan.env)
	if n.plan.env == nil {
		n.plan.env = map[string]string{}
	}
	n.plan.env[wipedVariable] = "1"
	n.anew = true
	return n.createLocked(ctx)
}

// wipedVariable is set where a process begins with nothing because of Wipe.
const wipedVariable = "OMNIBUS_WIPED"

// Cut closes every connection of clients to the node and refuses new ones.
func (n *Node) Cut() error { return n.proxy.cut() }

// BlackHole lets bytes vanish in both directions.
func (n *Node) BlackHole() error { return n.proxy.swallow(true, true) }

// HalfOpen lets vanish what the node says.
func (n *Node) HalfOpen() error { return n.proxy.swallow(false, true) }

// Latency delays every byte by d, in each direction. 0 ends it.
func (n *Node) Latency(d time.Duration) error { return n.proxy.latency(d) }

// Mend ends every fault of the network between clients and the node; see [Broker.Mend].
func (n *Node) Mend() error { return n.proxy.mend() }

// Traffic counts what went through the node's proxy since the start.
func (n *Node) Traffic() Traffic { return n.proxy.traffic() }

func (n *Node) errorf(format string, args ...any) error {
	return fmt.Errorf("containers: "+n.name+": "+format, args...)
}

func (n *Node) state(ctx context.Context) (*container.State, error) {
	if n.id == "" {
		return nil, n.errorf("the container has been removed")
	}
	c, err := n.engine.docker.ContainerInspect(ctx, n.id, client.ContainerInspectOptions{})
	if err != nil {
		return nil, n.errorf("inspect: %w", err)
	}
	return c.Container.State, nil
}

func (n *Node) create(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.createLocked(ctx)
}

func (n *Node) createLocked(ctx context.Context) error {
	req := testcontainers.ContainerRequest{
		Image:  n.engine.image,
		Cmd:    n.plan.cmd,
		Env:    n.plan.env,
		Labels: map[string]string{ownerLabel: n.engine.owner, filesLabel: n.files},
	}
	for _, path := range slices.Sorted(maps.Keys(n.plan.files)) {
		req.Files = append(req.Files, testcontainers.ContainerFile{
			Reader: strings.NewReader(n.plan.files[path]), ContainerFilePath: path, FileMode: 0o644,
		})
	}
	req.HostConfigModifier = func(h *container.HostConfig) {
		if n.plan.hostNetwork {
			h.NetworkMode = "host"
			return
		}
		h.PortBindings = network.PortMap{}
		for _, p := range n.plan.ports() {
			h.PortBindings[network.MustParsePort(strconv.Itoa(p.inside)+"/tcp")] = []network.PortBinding{
				{HostIP: netip.AddrFrom4([4]byte{127, 0, 0, 1}), HostPort: strconv.Itoa(p.outside)},
			}
		}
	}
	if !n.plan.hostNetwork {
		for _, p := range n.plan.ports() {
			req.ExposedPorts = append(req.ExposedPorts, strconv.Itoa(p.inside)+"/tcp")
		}
	}
	c, err := testcontainers.GenericContainer(ctx, testcontainers.GenericContainerRequest{
		ContainerRequest: req, Logger: log.NewNoopLogger(),
	})
	if c != nil {
		n.id = c.GetContainerID() // also of one that failed half way: it is removed by takeDown
	}
	if err != nil {
		return n.errorf("create: %w", err)
	}
	return nil
}

// launch starts the process, unless it runs, and does not wait until it answers.
func (n *Node) launch(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	before, err := n.state(ctx)
	if err != nil {
		return err
	}
	if before.Running {
		return nil
	}
	if _, err := n.engine.docker.ContainerStart(ctx, n.id, client.ContainerStartOptions{}); err != nil {
		return n.errorf("start: %w", err)
	}
	after, err := n.state(ctx)
	if err != nil {
		return err
	}
	if n.died != 0 && after.Pid == n.died {
		return n.errorf("process %d was killed and runs again", n.died)
	}
	return nil
}

// waitReady asks the node until it can serve.
func (n *Node) waitReady(ctx context.Context) error {
	if err := n.poll(ctx, n.engine.kind.ready); err != nil {
		return err
	}
	n.mu.Lock()
	anew := n.anew
	n.mu.Unlock()
	if !anew {
		return nil
	}
	if n.engine.kind.regained != nil {
		if err := n.poll(ctx, n.engine.kind.regained); err != nil {
			return err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.anew = false
	return nil
}

// poll asks the node until the answer is nil.
func (n *Node) poll(ctx context.Context, ask func(ctx context.Context, admin string) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask(ctx, n.Admin())
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return n.errorf("not ready: %w; it last said: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// lastWords is the end of the log of a node that did not come up, as an error.
func (n *Node) lastWords(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	r, err := n.engine.docker.ContainerLogs(ctx, n.id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: "20"})
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	var text bytes.Buffer
	if _, err := stdcopy.StdCopy(&text, &text, r); err != nil {
		return err
	}
	return errors.New(n.name + " logged:\n" + strings.TrimSpace(text.String()))
}

// remove takes the node down for good: container, data, proxy.
func (n *Node) remove(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.proxy != nil {
		if err := n.proxy.cut(); err != nil {
			return err
		}
	}
	return n.removeLocked(ctx)
}

func (n *Node) removeLocked(ctx context.Context) error {
	if n.id == "" {
		return nil
	}
	if err := remove(ctx, n.engine.docker, n.id); err != nil {
		return n.errorf("remove: %w", err)
	}
	n.id = ""
	return nil
}
