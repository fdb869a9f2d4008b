package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// server greets as NATS does, and lets its URL be found as that of the variant.
func server(t *testing.T, variable string) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, `INFO {"version":"2.99.0"}`+"\r\n") // whoever has gone needs none
			conn.Close()
		}
	}()
	url = "nats://" + l.Addr().String()
	t.Setenv(variable, url)
	return url
}

// The command finds the broker of any variant in the kind's plain variable.
func TestWith(t *testing.T) {
	for arg, variable := range map[string]string{
		"nats": "OMNIBUS_NATS_URL", "nats/default": "OMNIBUS_NATS_URL", "nats/tls": "OMNIBUS_NATS_TLS_URL",
	} {
		t.Run(arg, func(t *testing.T) {
			url := server(t, variable)
			var out bytes.Buffer
			if err := run(t.Context(), []string{"with", arg, "sh", "-c", "echo $OMNIBUS_NATS_URL"}, &out); err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSpace(out.String()); got != url {
				t.Errorf("the command is given %q, want %q", got, url)
			}
		})
	}
}

// A signal reaches what the command has started, as a program under go run, and the broker stays until that has ended.
func TestWithIsInterrupted(t *testing.T) {
	server(t, "OMNIBUS_NATS_URL")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		const program = `trap "echo ended; exit 0" TERM; echo up; while :; do sleep 0.05; done`
		ended <- run(ctx, []string{"with", "nats", "sh", "-c", "sh -c '" + program + "' & wait"}, w)
		w.Close()
	}()
	lines := bufio.NewScanner(r)
	if !lines.Scan() || lines.Text() != "up" {
		t.Fatalf("%q, %v", lines.Text(), lines.Err())
	}
	cancel()
	var rest []string
	for lines.Scan() {
		rest = append(rest, lines.Text())
	}
	if len(rest) != 1 || rest[0] != "ended" {
		t.Errorf("after the signal it says %q", rest)
	}
	if err := <-ended; err == nil {
		t.Error("an interrupted command is no success")
	}
}

// A variant that is another version has an image of its own, and the others that of the kind.
func TestImage(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"image", "kafka", "kafka/tls", "kafka/4.0"}, &out); err != nil {
		t.Fatal(err)
	}
	images := strings.Fields(out.String())
	if len(images) != 3 || images[0] != images[1] || !strings.HasPrefix(images[2], "apache/kafka:4.0.") || images[0] == images[2] {
		t.Errorf("the images are %q", images)
	}
	if err := run(t.Context(), []string{"image", "kafka/plumage"}, io.Discard); err == nil {
		t.Error("an image of no variant")
	}
}

func TestWants(t *testing.T) {
	for _, args := range [][]string{nil, {"up"}, {"with", "nats"}, {"down", "nats"}, {"image"}, {"fly", "nats"}} {
		if err := run(t.Context(), args, io.Discard); err == nil || !strings.Contains(err.Error(), "want up") {
			t.Errorf("%q: %v", args, err)
		}
	}
}
