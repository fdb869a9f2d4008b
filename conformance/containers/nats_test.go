package containers_test

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/poll"
)

// start starts a NATS broker for one test.
func start(t *testing.T, variant string) *containers.Broker {
	t.Helper()
	return containers.ForTest(t, "nats", variant)
}

func options(p containers.Params) []nats.Option {
	opts := []nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(20 * time.Millisecond), nats.ReconnectJitter(0, 0), nats.Timeout(5 * time.Second)}
	if p.CAFile != "" {
		opts = append(opts, nats.RootCAs(p.CAFile))
	}
	if p.CertFile != "" {
		opts = append(opts, nats.ClientCert(p.CertFile, p.KeyFile))
	}
	if p.Token != "" {
		opts = append(opts, nats.Token(p.Token))
	}
	if p.User != "" {
		opts = append(opts, nats.UserInfo(p.User, p.Password))
	}
	if p.CredsFile != "" {
		opts = append(opts, nats.UserCredentials(p.CredsFile))
	}
	return opts
}

func connect(t *testing.T, b *containers.Broker, more ...nats.Option) *nats.Conn {
	t.Helper()
	opts := append(options(b.Params), more...)
	if b.Params.SeedFile != "" {
		nkey, err := nats.NkeyOptionFromSeed(b.Params.SeedFile)
		if err != nil {
			t.Fatal(err)
		}
		opts = append(opts, nkey)
	}
	nc, err := nats.Connect(seeds(b), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// seeds is the broker's URL as nats.go wants it: a scheme for each server.
func seeds(b *containers.Broker) string { return strings.ReplaceAll(b.URL(), ",", ",nats://") }

// stream makes a stream with a message in it.
func stream(t *testing.T, nc *nats.Conn, replicas int) (jetstream.JetStream, jetstream.Stream) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "orders", Subjects: []string{"orders"}, Replicas: replicas})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "orders", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	return js, s
}

// messages counts what the stream holds, once it can be asked.
func messages(t *testing.T, s jetstream.Stream) (n uint64) {
	t.Helper()
	poll.Until(t, "the stream can be asked", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		info, err := s.Info(ctx)
		if err == nil {
			n = info.State.Msgs
		}
		return err == nil || errors.Is(err, jetstream.ErrStreamNotFound)
	})
	return n
}

// Every variant stores a message, asks for what its Params say, and announces its proxies and nothing else.
func TestVariants(t *testing.T) {
	for _, variant := range containers.Variants("nats") {
		t.Run(variant, func(t *testing.T) {
			b := start(t, variant)
			nc := connect(t, b)
			_, s := stream(t, nc, 1)
			if n := messages(t, s); n != 1 {
				t.Errorf("%d messages, want 1", n)
			}
			if got := nc.ConnectedServerVersion(); got != b.Version() {
				t.Errorf("Version is %q, the client says %q", b.Version(), got)
			}
			var proxies []string
			for _, n := range b.Nodes() {
				proxies = append(proxies, n.Addr())
			}
			for _, known := range nc.Servers() {
				if _, addr, _ := strings.Cut(known, "://"); !slices.Contains(proxies, addr) {
					t.Errorf("clients are told of %s, which is no proxy of %s", known, proxies)
				}
			}
			if b.Params == (containers.Params{}) {
				return
			}
			bare, err := nats.Connect(seeds(b), nats.Timeout(5*time.Second))
			if err == nil {
				bare.Close()
				t.Error("a client without Params was let in")
			}
			t.Logf("without Params: %v", err)
		})
	}
}

func TestParamsAreNewEachTime(t *testing.T) {
	a, b := start(t, "token"), start(t, "userpass")
	c := start(t, "token")
	if a.Params.Token == "" || a.Params.Token == c.Params.Token || b.Params.Password == "" {
		t.Error("credentials are not made anew")
	}
	file := start(t, "nkey")
	if err := file.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file.Params.SeedFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the seed is still there after Close: %v", err)
	}
	if err := file.Close(t.Context()); err != nil {
		t.Errorf("the second Close: %v", err)
	}
}

func TestKillAndRestart(t *testing.T) {
	b := start(t, "default")
	closed := make(chan error, 10)
	nc := connect(t, b, nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { closed <- err }))
	_, s := stream(t, nc, 1)
	node := b.Nodes()[0]
	before, err := node.PID(t.Context())
	if err != nil || before == 0 {
		t.Fatal(before, err)
	}
	if err := b.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-closed
	if pid, err := node.PID(t.Context()); pid != 0 || err != nil {
		t.Errorf("process %d after Kill: %v", pid, err)
	}
	if err := b.Kill(t.Context()); err == nil {
		t.Error("a second Kill had nothing to kill and says nil")
	}
	if err := b.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, err := node.PID(t.Context())
	if err != nil || after == 0 || after == before {
		t.Errorf("process %d before, %d after: %v", before, after, err)
	}
	if n := messages(t, s); n != 1 {
		t.Errorf("%d messages after the restart, want 1", n)
	}
}

func TestPause(t *testing.T) {
	b := start(t, "default")
	nc := connect(t, b)
	if err := b.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := nc.FlushTimeout(300 * time.Millisecond); !errors.Is(err, nats.ErrTimeout) {
		t.Errorf("a paused broker answers: %v", err)
	}
	if !nc.IsConnected() {
		t.Error("the pause cost the connection")
	}
	if err := b.Unpause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := nc.FlushTimeout(10 * time.Second); err != nil {
		t.Error(err)
	}
	if err := b.Pause(t.Context()); err != nil { // Kill and Close must cope with that
		t.Fatal(err)
	}
	if err := b.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWipe(t *testing.T) {
	b := start(t, "default")
	_, s := stream(t, connect(t, b), 1)
	if err := b.Wipe(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := b.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := messages(t, s); n != 0 {
		t.Errorf("%d messages after Wipe", n)
	}
	if err := b.Wipe(t.Context(), 1); err == nil {
		t.Error("there is no node 1")
	}
}

// A cluster goes on when a leader and all its data are gone, and gives both back.
func TestClusterLosesItsLeader(t *testing.T) {
	b := start(t, "cluster")
	nc := connect(t, b)
	js, s := stream(t, nc, 3)
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(b.Nodes(), func(n *containers.Node) bool { return n.Name() == info.Cluster.Leader })
	if i < 0 {
		t.Fatalf("the leader %q is none of the nodes", info.Cluster.Leader)
	}
	if err := b.Wipe(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "there is another leader", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := js.Publish(ctx, "orders", []byte("more"))
		return err == nil
	})
	if err := b.Nodes()[i].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := messages(t, s); n < 2 {
		t.Errorf("%d messages after the leader lost its data, want 2", n)
	}
	if err := b.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := messages(t, s); n < 2 {
		t.Errorf("%d messages after all nodes were killed, want 2", n)
	}
}

func TestCut(t *testing.T) {
	b := start(t, "default")
	closed := make(chan error, 10)
	nc := connect(t, b, nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { closed <- err }))
	if err := b.Cut(); err != nil {
		t.Fatal(err)
	}
	<-closed
	before := b.Traffic()
	for range 20 {
		if c, err := net.Dial("tcp", b.Nodes()[0].Addr()); err == nil {
			c.Close()
			t.Fatal("a cut proxy accepts a connection")
		}
	}
	if after := b.Traffic(); after != before {
		t.Errorf("traffic through a cut proxy: %+v, then %+v", before, after)
	}
	if err := b.Mend(); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the client is connected again", nc.IsConnected)
	if err := nc.FlushTimeout(10 * time.Second); err != nil {
		t.Error(err)
	}
	if err := b.Mend(); err != nil {
		t.Errorf("mending what is whole: %v", err)
	}
}

func TestBlackHole(t *testing.T) {
	b := start(t, "default")
	nc := connect(t, b)
	_, s := stream(t, nc, 1)
	if err := b.BlackHole(); err != nil {
		t.Fatal(err)
	}
	before := b.Traffic()
	if err := nc.Publish("orders", []byte("lost")); err != nil {
		t.Fatal(err)
	}
	if err := nc.FlushTimeout(300 * time.Millisecond); !errors.Is(err, nats.ErrTimeout) {
		t.Errorf("something came through: %v", err)
	}
	after := b.Traffic()
	if after.Up != before.Up || after.Down != before.Down || after.Dropped == before.Dropped {
		t.Errorf("%+v, then %+v: want the same up and down, and more dropped", before, after)
	}
	if !nc.IsConnected() {
		t.Error("the black hole cost the connection")
	}
	conn, err := net.Dial("tcp", b.Nodes()[0].Addr())
	if err != nil {
		t.Fatalf("a new connection is refused: %v", err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a new connection hears %d bytes, %v", n, err)
	}
	if err := b.Mend(); err != nil {
		t.Fatal(err)
	}
	if n := messages(t, s); n != 1 {
		t.Errorf("%d messages, want the one from before", n)
	}
}

func TestHalfOpen(t *testing.T) {
	b := start(t, "default")
	nc := connect(t, b)
	js, s := stream(t, nc, 1)
	if err := b.HalfOpen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := js.Publish(ctx, "orders", []byte("arrives")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the broker was heard: %v", err)
	}
	if !nc.IsConnected() {
		t.Error("half a line cost the connection")
	}
	if err := b.Mend(); err != nil {
		t.Fatal(err)
	}
	if n := messages(t, s); n != 2 {
		t.Errorf("%d messages, want 2: what was said has arrived", n)
	}
}

func TestLatency(t *testing.T) {
	b := start(t, "default")
	nc := connect(t, b)
	const each = 150 * time.Millisecond
	if err := b.Latency(each); err != nil {
		t.Fatal(err)
	}
	if d, err := nc.RTT(); d < 2*each || err != nil {
		t.Errorf("a round trip took %v, %v; want twice %v", d, err, each)
	}
	if err := b.Mend(); err != nil {
		t.Fatal(err)
	}
	fastest := time.Hour
	for range 20 {
		d, err := nc.RTT()
		if err != nil {
			t.Fatal(err)
		}
		fastest = min(fastest, d)
	}
	if fastest >= 2*each {
		t.Errorf("still %v after Mend", fastest)
	}
}
