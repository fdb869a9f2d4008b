package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/child"
	"github.com/omnibus-go/omnibus/internal/resident"
	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A consumer in a process of its own, which its test kills or looks at from outside.

const mortals = "mortal" // the name of such processes

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

// live consumes until told ends. It says the id of each message that it has handled before that is settled.
func (f fate) live(told context.Context) (err error) {
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
	<-told.Done()
	return nil
}

// A body is such a process as its test sees it.
type body struct {
	*child.Process
	deaf chan struct{} // closed when it says nothing more
}

// start starts it as a program, "" = this one, and tells hear each of its lines. It returns when the process consumes.
func (f fate) start(t *testing.T, program string, hear func(word, rest string)) *body {
	t.Helper()
	x := &body{child.Start(t, program, mortals, f), make(chan struct{})}
	there := make(chan struct{})
	go func() {
		defer close(x.deaf)
		for line := range x.Lines {
			word, rest, _ := strings.Cut(line, " ")
			if word == "there" { // it may have handled something before
				close(there)
				continue
			}
			hear(word, rest)
		}
	}()
	select {
	case <-there:
	case <-x.deaf:
		t.Fatal("a process has ended before it consumed")
	case <-time.After(30 * time.Second):
		t.Fatal("a process does not consume after 30 s")
	}
	return x
}

// kill ends the process with SIGKILL, and returns when all that it has said is heard.
func (x *body) kill(t *testing.T) {
	t.Helper()
	x.Kill()
	<-x.deaf
	if killed, err := x.Wait(); !killed {
		t.Errorf("a process has ended by itself: %v", err)
	}
}

// quit tells the process to end as a service does, and returns when it has.
func (x *body) quit(t *testing.T) {
	t.Helper()
	x.Quit()
	<-x.deaf
	if _, err := x.Wait(); err != nil {
		t.Errorf("a process ended with %v", err)
	}
}
