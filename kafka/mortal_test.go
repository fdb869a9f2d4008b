package kafka_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/resident"
	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A consumer in a process of its own, which its test kills or looks at from outside: this program, started again.

// fateVariable holds what such a process is to do.
const fateVariable = "OMNIBUS_KAFKA_FATE"

// A fate is what it does.
type fate struct {
	URL              string
	Topic, Group     string
	Concurrency      int
	MaxInFlight      int
	MaxInFlightBytes int64
	AckWait          time.Duration
	Busy             time.Duration // how long a handler takes
	Weighs           bool          // it says how much memory it has
}

func (f fate) subscription() pubsub.Subscription {
	return pubsub.Subscription{
		Topic: f.Topic, Group: f.Group, Concurrency: f.Concurrency, MaxInFlight: f.MaxInFlight, MaxInFlightBytes: f.MaxInFlightBytes, AckWait: f.AckWait,
	}
}

// mortal is for the beginning of TestMain. In a process that a test has started it does not return.
func mortal() {
	text := os.Getenv(fateVariable)
	if text == "" {
		return
	}
	var f fate
	err := json.Unmarshal([]byte(text), &f)
	if err == nil {
		err = f.live()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// live consumes until nobody is there to tell it to go on. It says the id of each message that it has handled before that is settled.
func (f fate) live() (err error) {
	b, err := kafka.Open(context.Background(), f.URL, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	_, err = b.Subscribe(context.Background(), f.subscription(), func(_ context.Context, d *pubsub.Delivery) error {
		time.Sleep(f.Busy)
		fmt.Println("done", d.ID)
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Println("there")
	if f.Weighs {
		go func() {
			for range time.Tick(50 * time.Millisecond) {
				fmt.Println("weighs", resident.Bytes())
			}
		}()
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// A body is such a process as its test sees it.
type body struct {
	cmd  *exec.Cmd
	in   io.Closer
	deaf chan struct{} // closed when it says nothing more
}

// start starts it as a program, "" = this one, and tells hear each of its lines. It returns when the process consumes.
func (f fate) start(t *testing.T, program string, hear func(word, rest string)) *body {
	t.Helper()
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	if program == "" {
		if program, err = os.Executable(); err != nil {
			t.Fatal(err)
		}
	}
	x := &body{cmd: exec.Command(program, "-test.run=^$"), deaf: make(chan struct{})}
	x.cmd.Env, x.cmd.Stderr = append(os.Environ(), fateVariable+"="+string(text)), os.Stderr
	if x.in, err = x.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := x.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	there := make(chan struct{})
	go func() {
		defer close(x.deaf)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			word, rest, _ := strings.Cut(lines.Text(), " ")
			if word == "there" {
				close(there)
				continue
			}
			hear(word, rest)
		}
	}()
	t.Cleanup(func() { x.kill(t) })
	select {
	case <-there:
	case <-x.deaf:
		t.Fatal("a process has ended before it consumed")
	case <-time.After(30 * time.Second):
		t.Fatal("a process does not consume after 30 s")
	}
	return x
}

// kill ends the process with SIGKILL, and returns when all that it has said is heard. It may be called again.
func (x *body) kill(t *testing.T) {
	t.Helper()
	if x.cmd.ProcessState != nil {
		return
	}
	_ = x.cmd.Process.Kill()
	<-x.deaf
	_ = x.cmd.Wait() // it says that it was killed
	if status, ok := x.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Errorf("a process has ended by itself: %v", x.cmd.ProcessState)
	}
}

// quit tells the process to end as a service does, and returns when it has.
func (x *body) quit(t *testing.T) {
	t.Helper()
	_ = x.in.Close()
	<-x.deaf
	if err := x.cmd.Wait(); err != nil {
		t.Errorf("a process ended with %v", err)
	}
}
