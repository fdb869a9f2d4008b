package containers

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// ErrNotOurs is what every control returns of a broker that was given by URL: it is not ours to break.
const ErrNotOurs = constant("containers: the broker was given by URL and is not ours to break")

// A constant is an error that no program can change.
type constant string

func (c constant) Error() string { return string(c) }

// A Broker is a running broker of one or more nodes. Its methods may be called concurrently; faults of one node are carried out
// one after another.
type Broker struct {
	// Params is what a client needs besides the URL.
	Params Params

	url     string
	version string
	nodes   []*Node
	token   func(valid time.Duration) (string, error)
	dir     string // of the files that Params names
	close   func(ctx context.Context) error
}

// Params are the credentials of the variants that ask for some, made anew by every Start. Files lie in a folder that Close
// removes. What a variant does not use is empty.
type Params struct {
	CAFile    string `json:",omitempty"` // PEM; signs the broker's certificate, which is valid for 127.0.0.1 and localhost
	CertFile  string `json:",omitempty"` // PEM; the client's, where the broker asks for one
	KeyFile   string `json:",omitempty"` // PEM; of CertFile
	Mechanism string `json:",omitempty"` // of SASL, where there are several: "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512" or "OAUTHBEARER" for Kafka, "EXTERNAL" for RabbitMQ
	User      string `json:",omitempty"` // who clients are
	Password  string `json:",omitempty"` // of User
	Token     string `json:",omitempty"` // for OAUTHBEARER a JWT that is valid for a day
	SeedFile  string `json:",omitempty"` // the private NKey
	CredsFile string `json:",omitempty"` // JWT and private NKey in one
}

// Start starts a broker of the kind ("nats") in one of its variants (see [Variants]; "" is "default") and returns once it answers,
// after at most a minute where ctx has no deadline. ctx bounds the start only. Whoever gets a Broker closes it.
func Start(ctx context.Context, kind, variant string) (*Broker, error) {
	k, variant, err := lookup(kind, variant)
	if err != nil {
		return nil, err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	return k.open(ctx, variant, true)
}

// open takes the broker of the environment, or starts one.
func (k kind) open(ctx context.Context, variant string, proxied bool) (*Broker, error) {
	if name := URLVariable(k.name, variant); os.Getenv(name) != "" {
		return external(ctx, k, name)
	}
	return k.start(ctx, variant, proxied)
}

func (k kind) start(ctx context.Context, variant string, proxied bool) (*Broker, error) {
	e, err := newEngine(ctx, k, variant, owner())
	if err != nil {
		return nil, err
	}
	b, err := e.start(ctx, variant, proxied)
	if err != nil {
		return nil, fmt.Errorf("containers: start %s, variant %s: %w", k.name, variant, errors.Join(err, e.Close()))
	}
	return b, nil
}

// external is the broker that an environment variable names.
func external(ctx context.Context, k kind, variable string) (*Broker, error) {
	raw := os.Getenv(variable)
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("containers: %s holds no URL", variable) // its error repeats the URL, and what is secret in it
	}
	addr, _, _ := strings.Cut(u.Host, ",")
	version, err := k.version(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("containers: the broker of %s does not answer: %w", variable, err)
	}
	return &Broker{url: raw, version: version, close: func(context.Context) error { return nil }}, nil
}

// bounded gives ctx the deadline of a start, if it has none.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Minute)
}

// URL is what a client connects to: every node's proxy, or the URL from the environment as it is. It holds no credentials of Params.
func (b *Broker) URL() string { return b.url }

// Version is what the broker calls itself: "2.15.2".
func (b *Broker) Version() string { return b.version }

// Token makes another token like Params.Token that is valid for so long from now; less than 0 = one that was. It fails unless the variant is
// Kafka's "oauthbearer", which takes every token that it makes, closes connections whose token has expired, and allows clocks half a minute.
func (b *Broker) Token(valid time.Duration) (string, error) {
	if b.token == nil {
		return "", errors.New("containers: the broker takes no tokens that can be made")
	}
	return b.token(valid)
}

// Ours says whether the broker is ours to break: false if it was given by URL.
func (b *Broker) Ours() bool { return len(b.nodes) > 0 }

// Nodes are the processes of the broker; none if it was given by URL.
func (b *Broker) Nodes() []*Node { return b.nodes }

// Kill ends every node's process as SIGKILL does, all at once. When it returns nil they are gone.
func (b *Broker) Kill(ctx context.Context) error {
	return b.all(func(n *Node) error { return n.Kill(ctx) })
}

// Restart starts every node that does not run, on the same ports with the data that is left, and returns once all answer.
func (b *Broker) Restart(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := b.all(func(n *Node) error { return n.launch(ctx) }); err != nil {
		return err // nodes of a cluster answer together or not at all
	}
	return b.all(func(n *Node) error { return n.waitReady(ctx) })
}

// Pause freezes every node's process: connections stay, nothing answers.
func (b *Broker) Pause(ctx context.Context) error {
	return b.all(func(n *Node) error { return n.Pause(ctx) })
}

// Unpause lets every node go on.
func (b *Broker) Unpause(ctx context.Context) error {
	return b.all(func(n *Node) error { return n.Unpause(ctx) })
}

// Wipe kills a node and removes all that it had stored. Restart brings it back empty.
func (b *Broker) Wipe(ctx context.Context, node int) error {
	if !b.Ours() {
		return ErrNotOurs
	}
	if node < 0 || node >= len(b.nodes) {
		return fmt.Errorf("containers: there is no node %d of %d", node, len(b.nodes))
	}
	return b.nodes[node].Wipe(ctx)
}

// Cut closes every connection of clients and refuses new ones.
func (b *Broker) Cut() error { return b.all((*Node).Cut) }

// BlackHole lets bytes vanish in both directions. Connections stay, and new ones are accepted but hear nothing.
func (b *Broker) BlackHole() error { return b.all((*Node).BlackHole) }

// HalfOpen lets vanish what the brokers say. What clients say still arrives.
func (b *Broker) HalfOpen() error { return b.all((*Node).HalfOpen) }

// Latency delays every byte by d, in each direction. 0 ends it.
func (b *Broker) Latency(d time.Duration) error {
	return b.all(func(n *Node) error { return n.Latency(d) })
}

// Mend ends every fault of the network. Connections that lost bytes are closed: a stream with a hole is none.
func (b *Broker) Mend() error { return b.all((*Node).Mend) }

// Traffic sums what went through the proxies since the start.
func (b *Broker) Traffic() Traffic {
	var sum Traffic
	for _, n := range b.nodes {
		t := n.Traffic()
		sum.Up += t.Up
		sum.Down += t.Down
		sum.Dropped += t.Dropped
	}
	return sum
}

// Close stops the broker and removes its containers, data and files. The second time it does nothing and returns nil.
func (b *Broker) Close(ctx context.Context) error { return b.close(ctx) }

// all does f to every node at once.
func (b *Broker) all(f func(*Node) error) error {
	if !b.Ours() {
		return ErrNotOurs
	}
	errs := make([]error, len(b.nodes))
	var wg sync.WaitGroup
	for i, n := range b.nodes {
		wg.Go(func() { errs[i] = f(n) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
