package nats_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A scripted server speaks as much of the protocol as a publisher needs, and answers as the subject says.
type scripted struct {
	net.Listener
	pings atomic.Int64 // answered
	mute  atomic.Bool  // no PONG any more
	cut   atomic.Bool  // ends the connection instead of a PONG, once
	conns sync.WaitGroup
}

func startScripted(t *testing.T) *scripted {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{Listener: l}
	s.conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.conns.Go(func() {
				defer c.Close()
				if err := s.serve(c); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
					t.Log(err)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		s.conns.Wait() // the client has closed by now
	})
	return s
}

func (s *scripted) serve(c net.Conn) error {
	if _, err := fmt.Fprint(c, `INFO {"server_id":"scripted","version":"2.10.0","proto":1,"headers":true,"max_payload":1048576}`+"\r\n"); err != nil {
		return err
	}
	r := bufio.NewReader(c)
	sid := ""
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		f := strings.Fields(line)
		answer := ""
		switch strings.ToUpper(f[0]) {
		case "PING":
			if s.cut.Swap(false) {
				return nil
			}
			if answer = "PONG\r\n"; s.mute.Load() {
				answer = ""
			} else {
				s.pings.Add(1)
			}
		case "SUB":
			sid = f[len(f)-1]
		case "HPUB": // subject reply headers total
			n, err := strconv.Atoi(f[len(f)-1])
			if err != nil {
				return err
			}
			if _, err := io.CopyN(io.Discard, r, int64(n)+2); err != nil {
				return err
			}
			switch {
			case strings.HasPrefix(f[1], "denied"):
				answer = fmt.Sprintf("-ERR 'Permissions Violation for Publish to \"%s\"'\r\n", f[1])
			case f[1] == "nobody" && len(f) == 5:
				answer = fmt.Sprintf("HMSG %s %s 16 16\r\nNATS/1.0 503\r\n\r\n\r\n", f[2], sid)
			}
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return err
		}
	}
}

// Each message of a batch has the fate that the server gives it, and one PING is for many.
func TestCoreFates(t *testing.T) {
	noLeak(t)
	s := startScripted(t)
	b, err := nats.Open(t.Context(), "nats+core://"+s.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]pubsub.Code{"fine": 0, "denied-1": pubsub.ErrDenied, "denied-2": pubsub.ErrDenied, "nobody": pubsub.ErrUnroutable}
	topics := []string{"fine", "denied-1", "fine", "nobody", "denied-2", "fine"}
	const all = 3000
	before := s.pings.Load()
	var told sync.WaitGroup
	for i := range all {
		told.Add(1)
		topic := topics[i%len(topics)]
		b.PublishAsync(t.Context(), topic, pubsub.Message{}, func(r pubsub.Receipt, err error) {
			defer told.Done()
			if code := pubsub.CodeOf(err); code != want[topic] {
				t.Errorf("message %d to %s: %v", i, topic, err)
			}
		})
	}
	told.Wait()
	if n := s.pings.Load() - before; n > all/10 {
		t.Errorf("%d PINGs for %d messages", n, all)
	}

	pub, err := b.Publisher(pubsub.PublisherOptions{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	s.cut.Store(true) // the answer is lost with the connection: sent again
	if err := pub.Publish(t.Context(), "fine", pubsub.Message{}); err != nil {
		t.Errorf("a publish whose connection broke once: %v", err)
	}
	s.mute.Store(true)
	if err := pub.Publish(t.Context(), "fine", pubsub.Message{}); pubsub.CodeOf(err) != pubsub.ErrUnconfirmed {
		t.Errorf("a publish without an answer: %v", err)
	}
	never, err := b.Publisher(pubsub.PublisherOptions{Ack: pubsub.AckNone})
	if err != nil {
		t.Fatal(err)
	}
	if err := never.Publish(t.Context(), "fine", pubsub.Message{}); err != nil {
		t.Errorf("a publish that wants no answer: %v", err)
	}
	s.cut.Store(true) // a server that has kept an answer back never answers in order again
	s.mute.Store(false)
	if err := b.Ping(t.Context()); err == nil {
		t.Error("a ping whose connection broke returned nil")
	}
	if err := pub.Publish(t.Context(), "fine", pubsub.Message{}); err != nil {
		t.Errorf("a publish after that: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := nats.Open(context.Background(), "nats+core://127.0.0.1:1", nil); pubsub.CodeOf(err) != pubsub.ErrUnavailable {
		t.Errorf("nobody listens: %v", err)
	}
}
