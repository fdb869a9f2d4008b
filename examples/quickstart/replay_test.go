package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/memory"
)

// The check of the replay must be able to fail: the gateway is down still.
func TestReplayThatFailsAgain(t *testing.T) {
	b := memory.New(nil)
	defer b.Close()
	var bank gateway
	g := groups("orders", &bank)[0]
	s := session{topic: "orders", wait: time.Minute, name: "test", out: io.Discard, errOut: io.Discard,
		input: strings.NewReader(strings.Replace(good1, "tok_visa", "tok_timeout", 1))}
	books := newLedger("billing")
	c, err := g.work(t.Context(), b, "run", books, books.groups[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.publish(t.Context(), b, "run", books); err != nil {
		t.Fatal(err)
	}
	<-books.done
	if err := c.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		recovered bool
		want      string
	}{{false, "1 orders neither handled"}, {true, ""}} {
		bank.recovered.Store(step.recovered)
		problems, err := s.replay(t.Context(), b, "run", g)
		got := strings.Join(problems, "\n")
		if err != nil || (got == "") != (step.want == "") || !strings.Contains(got, step.want) {
			t.Errorf("with the gateway recovered (%v): %q, %v; want %q", step.recovered, got, err, step.want)
		}
	}
}
