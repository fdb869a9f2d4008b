package containers_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/poll"
)

func TestMain(m *testing.M) {
	switch os.Getenv("OMNIBUS_TEST_CHILD") {
	case "start":
		leaveABroker(context.Background())
		return
	case "late":
		late, cancel := context.WithDeadline(context.Background(), time.Now())
		leaveABroker(late)
		cancel()
		return
	}
	for _, e := range os.Environ() { // these tests break what they start
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "OMNIBUS_") && strings.HasSuffix(name, "_URL") {
			os.Unsetenv(name)
		}
	}
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick")) // sarama's, one for all connections
}

func TestUnknown(t *testing.T) {
	if b, err := containers.Start(t.Context(), "pigeons", ""); b != nil || err == nil || !strings.Contains(err.Error(), "nats") {
		t.Errorf("%v does not name the kinds that there are", err)
	}
	if b, err := containers.Start(t.Context(), "nats", "plumage"); b != nil || err == nil || !strings.Contains(err.Error(), "cluster") {
		t.Errorf("%v does not name the variants that there are", err)
	}
	if v := containers.Variants("pigeons"); v != nil {
		t.Errorf("variants %q", v)
	}
	if v := containers.Variants("nats"); len(v) == 0 || v[0] != "default" {
		t.Errorf("variants %q", v)
	}
}

func TestURLVariable(t *testing.T) {
	for want, of := range map[string][2]string{
		"OMNIBUS_NATS_URL": {"nats", ""}, "OMNIBUS_KAFKA_URL": {"kafka", "default"}, "OMNIBUS_KAFKA_4_0_URL": {"kafka", "4.0"},
	} {
		if got := containers.URLVariable(of[0], of[1]); got != want {
			t.Errorf("%s of %s", got, of)
		}
	}
}

// A broker given by URL is used as it is, and nobody breaks it.
func TestGivenByURL(t *testing.T) {
	ours := start(t, "default")
	t.Setenv("OMNIBUS_NATS_URL", ours.URL()+"?some=parameter")
	b := start(t, "")
	if b.URL() != ours.URL()+"?some=parameter" || b.Version() != ours.Version() || len(b.Nodes()) != 0 {
		t.Errorf("%s %s, %d nodes", b.URL(), b.Version(), len(b.Nodes()))
	}
	for name, err := range map[string]error{
		"Kill": b.Kill(t.Context()), "Restart": b.Restart(t.Context()), "Pause": b.Pause(t.Context()),
		"Unpause": b.Unpause(t.Context()), "Wipe": b.Wipe(t.Context(), 0), "Cut": b.Cut(), "BlackHole": b.BlackHole(),
		"HalfOpen": b.HalfOpen(), "Latency": b.Latency(time.Second), "Mend": b.Mend(),
	} {
		if !errors.Is(err, containers.ErrNotOurs) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if f := b.Faults(); f != nil {
		t.Errorf("%d faults of a broker that is not ours", len(f))
	}
	if err := b.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", ours.Nodes()[0].Addr()); err != nil {
		t.Errorf("closing a broker that is not ours ended it: %v", err)
	}

	t.Setenv("OMNIBUS_NATS_URL", "nats://user:hush@127.0.0.1:1")
	if b, err := containers.Start(t.Context(), "nats", ""); err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("%v, %v for a URL where nobody listens", b, err)
	}
	t.Setenv("OMNIBUS_NATS_URL", "nats://user:hu%sh@x")
	if b, err := containers.Start(t.Context(), "nats", ""); err == nil || strings.Contains(err.Error(), "hu%sh") {
		t.Errorf("%v, %v for what is no URL", b, err)
	}
}

// An image that does not start fails with what it said, and leaves nothing.
func TestStartFails(t *testing.T) {
	t.Setenv("OMNIBUS_NATS_IMAGE", "omnibus-there-is-no-such-image:local")
	if b, err := containers.Start(t.Context(), "nats", ""); err == nil || !strings.Contains(err.Error(), "omnibus-there-is-no-such-image") {
		t.Errorf("%v, %v", b, err)
	}
}

// A daemon that does not answer in time: the error says how to go on. In a process of its own: an answer is remembered.
func TestNoDaemon(t *testing.T) {
	out, err := child(t, "late").Output()
	if err == nil || !strings.Contains(string(out), "make setup") || !strings.Contains(string(out), "OMNIBUS_NATS_URL") {
		t.Errorf("%v: %q does not say how to go on", err, out)
	}
}

// child is this test binary, told to do something else than to test.
func child(t *testing.T, what string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), "OMNIBUS_TEST_CHILD="+what)
	cmd.Stderr = os.Stderr
	return cmd
}

// leaveABroker starts a broker, says what it left, and waits to be killed.
func leaveABroker(ctx context.Context) {
	b, err := containers.Start(ctx, "nats", "default")
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for _, n := range b.Nodes() {
		pid, err := n.PID(ctx)
		fmt.Println(pid, err)
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test has ended, if it does not kill this process
}

// What a killed process left behind is removed by the next Start of another; what belongs to a living one stays.
func TestLeftovers(t *testing.T) {
	cmd := child(t, "start")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	var pid int
	if _, err := fmt.Sscan(line, &pid); err != nil || pid == 0 {
		t.Fatalf("the child said %q", line)
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	alive := func() bool { return !errors.Is(process.Signal(syscall.Signal(0)), os.ErrProcessDone) }

	start(t, "default")
	if !alive() {
		t.Error("the broker of a living process was removed")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if !alive() {
		t.Error("the broker died with its owner: this test shows nothing")
	}
	start(t, "default")
	poll.Until(t, "what the process left is removed", func() bool { return !alive() })
}

// By hand: a broker that no Start of another process removes, until Down.
func TestUpAndDown(t *testing.T) {
	url, params, err := containers.Up(t.Context(), "nats", "mtls")
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{strings.TrimPrefix(start(t, "default").URL(), "nats://"), strings.TrimPrefix(url, "nats://")} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	if err := containers.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", strings.TrimPrefix(url, "nats://")); err == nil {
		conn.Close()
		t.Error("it still listens after Down")
	}
	if _, err := os.Stat(params.KeyFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the key is still there after Down: %v", err)
	}
}

// A lent broker has no proxy, is there while it is used, and what went wrong meanwhile is told.
func TestLend(t *testing.T) {
	broken := errors.New("broken")
	var addr string
	err := containers.Lend(t.Context(), "nats", "", func(url string) error {
		nc, err := nats.Connect(url)
		if err != nil {
			return err
		}
		defer nc.Close()
		if addr = nc.ConnectedAddr(); len(nc.DiscoveredServers()) > 0 {
			t.Errorf("reached at %s, it announces %q: there is something between", addr, nc.DiscoveredServers())
		}
		return broken
	})
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Error("it still listens")
	}
	err = containers.Lend(t.Context(), "nats", "token", func(string) error { t.Error("lent without its token"); return nil })
	if err == nil || !strings.Contains(err.Error(), "more than a URL") {
		t.Error(err)
	}
}

// Toxiproxy leaves a goroutine behind for each connection that breaks while bytes are under way, unless the valve prevents it.
func TestBrokenConnectionsLeaveNothing(t *testing.T) {
	b := start(t, "default")
	before := goleak.IgnoreCurrent()
	payload := slices.Repeat([]byte("x"), 64<<10)
	for range 5 {
		nc := connect(t, b, nats.NoReconnect())
		sub, err := nc.SubscribeSync("flood")
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			if err := nc.Publish("flood", payload); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := sub.NextMsg(10 * time.Second); err != nil {
			t.Fatal(err)
		}
		nc.Close() // with most of it still under way
	}
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
}

// A test is given the broker that the environment names, unless it breaks it; what was started for it goes with it.
func TestForTest(t *testing.T) {
	given := containers.ForTest(t, "nats", "")
	t.Setenv("OMNIBUS_NATS_URL", given.URL())
	var own string
	t.Run("lent", func(t *testing.T) {
		if b := containers.ForTest(t, "nats", "default"); b.Ours() || b.URL() != given.URL() {
			t.Errorf("%s, ours: %v; the environment names %s", b.URL(), b.Ours(), given.URL())
		}
		b := containers.OwnForTest(t, "nats", "default")
		if !b.Ours() || b.URL() == given.URL() {
			t.Errorf("%s, ours: %v; the environment names %s", b.URL(), b.Ours(), given.URL())
		}
		own = b.Nodes()[0].Addr()
	})
	if conn, err := net.Dial("tcp", own); err == nil {
		conn.Close()
		t.Error("the broker outlives its test")
	}
	if conn, err := net.Dial("tcp", given.Nodes()[0].Addr()); err != nil {
		t.Errorf("the broker of the environment ended with the test that it was lent to: %v", err)
	} else {
		conn.Close()
	}
}

// Where no broker of its own can be started a test that breaks it fails, and says why another one will not do.
func TestOwnForTestFails(t *testing.T) {
	t.Setenv("OMNIBUS_NATS_URL", "nats://127.0.0.1:1")
	t.Setenv("OMNIBUS_NATS_IMAGE", "omnibus-there-is-no-such-image:local")
	f := &failing{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		containers.OwnForTest(f, "nats", "")
	}()
	<-done
	if !strings.Contains(f.said, "omnibus-there-is-no-such-image") || !strings.Contains(f.said, "of its own") {
		t.Errorf("it says %q", f.said)
	}
}

// A failing stands for a test that may fail.
type failing struct {
	testing.TB
	said string
}

func (f *failing) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)
	runtime.Goexit()
}
