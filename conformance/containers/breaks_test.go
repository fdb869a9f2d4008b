package containers_test

import (
	"net"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/poll"
)

// A topic has one message to begin with.
type topic interface {
	send(value string) <-chan error // the answer, once there is one
	messages(t *testing.T) int64    // once they can be counted; 0 if there is no such topic
}

// An asker asks a node over one connection.
type asker interface{ ask() <-chan error }

// A broken broker is one that several tests break, one after another.
type broken struct {
	*containers.Broker
	topic func(t *testing.T, name string) topic
	line  func(t *testing.T) asker
	young time.Duration // how long a topic does not survive a kill
}

func (b broken) test(t *testing.T) {
	t.Helper()
	t.Run("latency", b.testLatency)
	t.Run("half-open", b.testHalfOpen)
	t.Run("black hole", b.testBlackHole)
	t.Run("cut", b.testCut)
	t.Run("pause", b.testPause)
	t.Run("kill", b.testKill)
	t.Run("wipe", b.testWipe)
}

// hears waits a while for an answer.
func hears(answer <-chan error) (answered bool, err error) {
	select {
	case err := <-answer:
		return true, err
	case <-time.After(300 * time.Millisecond):
		return false, nil
	}
}

func (b broken) testLatency(t *testing.T) {
	l := b.line(t)
	roundTrip := func() time.Duration {
		begin := time.Now()
		if err := <-l.ask(); err != nil {
			t.Fatal(err)
		}
		return time.Since(begin)
	}
	const each = 150 * time.Millisecond
	if err := b.Latency(each); err != nil {
		t.Fatal(err)
	}
	if took := roundTrip(); took < 2*each {
		t.Errorf("a round trip took %v, want twice %v", took, each)
	}
	if err := b.Mend(); err != nil {
		t.Fatal(err)
	}
	fastest := time.Hour
	for range 20 {
		fastest = min(fastest, roundTrip())
	}
	if fastest >= 2*each {
		t.Errorf("still %v after Mend", fastest)
	}
}

func (b broken) testHalfOpen(t *testing.T) {
	k := b.topic(t, "half-open")
	if err := b.HalfOpen(); err != nil {
		t.Fatal(err)
	}
	answer := k.send("arrives")
	if answered, err := hears(answer); answered {
		t.Errorf("the broker was heard: %v", err)
	}
	if err := b.Mend(); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err == nil {
		t.Error("a stream with a hole has an answer")
	}
	poll.Until(t, "the message has arrived", func() bool { return k.messages(t) == 2 })
}

func (b broken) testBlackHole(t *testing.T) {
	k, l := b.topic(t, "black-hole"), b.line(t)
	if err := b.BlackHole(); err != nil {
		t.Fatal(err)
	}
	before := b.Traffic()
	sent, asked := k.send("lost"), l.ask()
	for _, answer := range []<-chan error{sent, asked} {
		if answered, err := hears(answer); answered {
			t.Errorf("something came through: %v", err)
		}
	}
	after := b.Traffic()
	if after.Up != before.Up || after.Down != before.Down || after.Dropped == before.Dropped {
		t.Errorf("%+v, then %+v: want the same up and down, and more dropped", before, after)
	}
	conn, err := net.Dial("tcp", b.Nodes()[0].Addr())
	if err != nil {
		t.Fatalf("a new connection is refused: %v", err)
	}
	defer conn.Close()
	if err := b.Mend(); err != nil {
		t.Fatal(err)
	}
	for _, answer := range []<-chan error{sent, asked} {
		if err := <-answer; err == nil {
			t.Error("a stream with a hole has an answer")
		}
	}
	if n := k.messages(t); n != 1 {
		t.Errorf("%d messages, want the one from before", n)
	}
}

func (b broken) testCut(t *testing.T) {
	k, l := b.topic(t, "cut"), b.line(t)
	if err := b.Cut(); err != nil {
		t.Fatal(err)
	}
	if err := <-l.ask(); err == nil {
		t.Error("a connection survived the cut")
	}
	if c, err := net.Dial("tcp", b.Nodes()[0].Addr()); err == nil {
		c.Close()
		t.Error("a cut proxy accepts a connection")
	}
	if err := <-k.send("lost"); err == nil {
		t.Error("something came through")
	}
	if err := b.Mend(); err != nil {
		t.Fatal(err)
	}
	if n := k.messages(t); n != 1 {
		t.Errorf("%d messages, want the one from before", n)
	}
}

func (b broken) testPause(t *testing.T) {
	k, l := b.topic(t, "pause"), b.line(t)
	if err := b.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	sent, asked := k.send("late"), l.ask()
	for _, answer := range []<-chan error{sent, asked} {
		if answered, err := hears(answer); answered {
			t.Errorf("a paused broker answers: %v", err)
		}
	}
	if err := b.Unpause(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, answer := range []<-chan error{sent, asked} {
		if err := <-answer; err != nil {
			t.Errorf("the pause cost the connection, or the message: %v", err)
		}
	}
}

func (b broken) testKill(t *testing.T) {
	k, l := b.topic(t, "kill"), b.line(t)
	node := b.Nodes()[0]
	before, err := node.PID(t.Context())
	if err != nil || before == 0 {
		t.Fatal(before, err)
	}
	time.Sleep(b.young)
	if err := b.Pause(t.Context()); err != nil { // Kill must cope with that
		t.Fatal(err)
	}
	asked := l.ask()
	if err := b.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-asked; err == nil {
		t.Error("a killed broker answers")
	}
	if err := b.Kill(t.Context()); err == nil {
		t.Error("a second Kill had nothing to kill and says nil")
	}
	begin := time.Now()
	if err := b.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("back after %v", time.Since(begin))
	after, err := node.PID(t.Context())
	if err != nil || after == 0 || after == before {
		t.Errorf("process %d before, %d after: %v", before, after, err)
	}
	if n := k.messages(t); n != 1 {
		t.Errorf("%d messages after the restart, want 1", n)
	}
}

func (b broken) testWipe(t *testing.T) {
	k := b.topic(t, "wipe")
	if err := b.Wipe(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := b.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := k.messages(t); n != 0 {
		t.Errorf("%d messages after Wipe", n)
	}
}
