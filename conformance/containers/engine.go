package containers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
)

const (
	ownerLabel = "omnibus.owner" // of every container of ours: "host/pid", or byHand
	byHand     = "by hand"       // nobody's: until Down
	filesLabel = "omnibus.files" // names the folder of the files in Params, which goes with the container
)

// owner names this process in labels.
func owner() string {
	host, _ := os.Hostname() // without a name, all hosts of one daemon count as one
	return host + "/" + strconv.Itoa(os.Getpid())
}

// dead reports whether the process that owned a container ran on this host and has ended.
func dead(owner string) bool {
	host, pid, _ := strings.Cut(owner, "/")
	n, err := strconv.Atoi(pid)
	if here, _ := os.Hostname(); err != nil || host != here {
		return false
	}
	p, err := os.FindProcess(n)
	if err != nil {
		return true
	}
	return errors.Is(p.Signal(syscall.Signal(0)), os.ErrProcessDone)
}

// An engine starts the containers of one broker.
type engine struct {
	kind   kind
	image  string
	owner  string
	docker *testcontainers.DockerClient
}

func newEngine(ctx context.Context, k kind, variant, owner string) (*engine, error) {
	docker, err := dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("containers: %s needs a container daemon, and none answers (%w): run `make setup`, or name a running broker in %s",
			k.name, err, URLVariable(k.name, variant))
	}
	e := &engine{kind: k, owner: owner, docker: docker}
	e.image = k.imageFromEnvironment(variant)
	if e.image == "" {
		e.image = k.localImage(variant)
		if _, err := docker.ImageInspect(ctx, e.image); err != nil {
			e.image = k.officialImage(variant)
		}
	}
	if err := removeOwned(ctx, docker, dead); err != nil {
		return nil, fmt.Errorf("containers: remove what ended processes left: %w", errors.Join(err, docker.Close()))
	}
	return e, nil
}

func (e *engine) Close() error { return e.docker.Close() }

// dial connects to the daemon.
func dial(ctx context.Context) (*testcontainers.DockerClient, error) {
	for name, value := range map[string]string{
		"TESTCONTAINERS_HOST_OVERRIDE": "127.0.0.1", // another address of the host would not be bound
		"TESTCONTAINERS_RYUK_DISABLED": "true",      // its image may not be there; our label does its work
	} {
		if _, set := os.LookupEnv(name); !set {
			if err := os.Setenv(name, value); err != nil {
				return nil, err
			}
		}
	}
	return testcontainers.NewDockerClientWithOpts(ctx)
}

// removeOwned removes what there is of brokers of ours whose owner is one to go.
func removeOwned(ctx context.Context, docker *testcontainers.DockerClient, goes func(owner string) bool) error {
	list, err := docker.ContainerList(ctx, client.ContainerListOptions{
		All: true, Filters: client.Filters{}.Add("label", ownerLabel),
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range list.Items {
		if goes(c.Labels[ownerLabel]) {
			errs = append(errs, remove(ctx, docker, c.ID), removeFiles(c.Labels[filesLabel]))
		}
	}
	return errors.Join(errs...)
}

const filesPrefix = "omnibus-broker-"

// removeFiles removes a broker's folder by its name. A label is no path: it might have been written on another machine.
func removeFiles(name string) error {
	if !strings.HasPrefix(name, filesPrefix) || strings.ContainsAny(name, `/\\`) {
		return nil
	}
	return os.RemoveAll(filepath.Join(os.TempDir(), name))
}

// remove kills and removes a container; that somebody else is at it already is fine.
func remove(ctx context.Context, docker *testcontainers.DockerClient, id string) error {
	_, err := docker.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if err != nil && (strings.Contains(err.Error(), "No such container") || strings.Contains(err.Error(), "already in progress")) {
		return nil
	}
	return err
}

// A site is what a plan may build on: free ports and a folder for the client's files.
type site struct {
	dir     string
	ports   []int
	proxied bool
}

// port takes a free port.
func (s *site) port() int {
	p := s.ports[0]
	s.ports = s.ports[1:]
	return p
}

// publish takes a port of the host for a listener inside a container.
func (s *site) publish(inside int) port { return port{inside: inside, outside: s.port()} }

// front takes the port that a node announces: its proxy's, or its own where there is none.
func (s *site) front(client port) int {
	if s.proxied {
		return s.port()
	}
	return client.outside
}

// start lays the broker out and starts it. When it fails, nothing is left.
func (e *engine) start(ctx context.Context, variant string, proxied bool) (_ *Broker, err error) {
	dir, err := os.MkdirTemp("", filesPrefix)
	if err != nil {
		return nil, err
	}
	b := &Broker{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.takeDown(context.WithoutCancel(ctx), b))
		}
	}()
	s := &site{dir: dir, proxied: proxied}
	if s.ports, err = freePorts(ctx, 32); err != nil {
		return nil, err
	}
	p, err := e.kind.plan(variant, s)
	if err != nil {
		return nil, err
	}
	b.Params, b.token = p.params, p.token
	var addrs []string
	for i, np := range p.nodes {
		n := &Node{engine: e, plan: np, files: filepath.Base(dir), name: e.kind.name + "-" + strconv.Itoa(i)}
		b.nodes = append(b.nodes, n)
		if !np.inner {
			addrs = append(addrs, local(np.front))
		}
		if proxied {
			if n.proxy, err = startProxy(local(np.front), local(np.client.outside)); err != nil {
				return nil, err
			}
		}
	}
	if err := b.all(func(n *Node) error { return n.create(ctx) }); err != nil {
		return nil, fmt.Errorf("image %s: %w", e.image, err)
	}
	if err := b.Restart(ctx); err != nil {
		return nil, errors.Join(err, b.all(func(n *Node) error { return n.lastWords(context.WithoutCancel(ctx)) }))
	}
	b.url = p.scheme + "://" + strings.Join(addrs, ",") + p.tail
	if b.version, err = e.kind.version(ctx, local(p.nodes[0].client.outside)); b.version == "" && err == nil {
		b.version, err = e.kind.version(ctx, local(p.nodes[0].admin.outside))
	}
	if err != nil {
		return nil, err
	}
	var closing sync.Mutex
	closed := false
	b.close = func(ctx context.Context) error {
		closing.Lock()
		defer closing.Unlock()
		if closed {
			return nil
		}
		err := e.takeDown(ctx, b)
		closed = err == nil
		return err
	}
	return b, nil
}

// takeDown removes what there is of a broker.
func (e *engine) takeDown(ctx context.Context, b *Broker) error {
	var err error
	if len(b.nodes) > 0 {
		err = b.all(func(n *Node) error { return n.remove(ctx) })
	}
	return cmp.Or(err, os.RemoveAll(b.dir), e.docker.Close())
}
