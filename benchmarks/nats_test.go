package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	client "github.com/nats-io/nats.go"

	"github.com/omnibus-go/omnibus/internal/bench"
)

// Every row of every implementation works on the server of OMNIBUS_NATS_URL, loses nothing and leaves no stream behind; the figures are worth nothing.
func TestNATS(t *testing.T) {
	before := natsStreams(t)
	all, failing := len(bench.Shapes()), len(bench.Failing())
	wantRows(t, "nats", "10ms", map[string]int{"raw": all, "omnibus": all + failing, "watermill": all - 1, "watermill-async-ack": all - 1, "ideal": 1},
		"nats 2.", fmt.Sprintf("gocloud, %s: %d rows", natsCoreOnly, all+failing), "watermill, no asynchronous publish: 1 rows")
	if after := natsStreams(t); after != before {
		t.Errorf("%d streams, %d before", after, before)
	}
}

func natsStreams(t *testing.T) int {
	t.Helper()
	js, err := natsConnect(serverURL(t, "nats"))
	if err != nil {
		t.Fatal(err)
	}
	defer js.Conn().Close()
	info, err := js.AccountInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.Streams
}

// Raw puts the headers on the wire that omnibus does: the same names, and values as long.
func TestNATSRawSendsTheSameBytes(t *testing.T) {
	url := serverURL(t, "nats")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m := bench.Message{ID: fmt.Sprintf("%021d", 7), Key: "key-00001", ContentType: "application/octet-stream", Payload: []byte("x")}
	stored := func(open func() (*bench.Client, error), subject string) client.Header {
		t.Helper()
		c, err := open()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(ctx)
		if err := c.Prepare(ctx, subject, []string{"g"}); err != nil {
			t.Fatal(err)
		}
		if err := c.Publish(ctx, subject, m); err != nil {
			t.Fatal(err)
		}
		js, err := natsConnect(url)
		if err != nil {
			t.Fatal(err)
		}
		defer js.Conn().Close()
		name, err := js.StreamNameBySubject(ctx, subject)
		if err != nil {
			t.Fatal(err)
		}
		s, err := js.Stream(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		last, err := s.GetLastMsgForSubject(ctx, subject)
		if err != nil {
			t.Fatal(err)
		}
		return last.Header
	}
	subject := fmt.Sprintf("bench-bytes-%d", time.Now().UnixNano())
	raw := stored(func() (*bench.Client, error) { return openNATS(url) }, subject)
	ours := stored(func() (*bench.Client, error) { return openNATSOmnibus(ctx, url) }, subject)
	total := func(h client.Header) (names []string, bytes int) {
		for name, values := range h {
			if !strings.HasPrefix(name, "Nats-") || name == client.MsgIdHdr { // those others are the server's
				names = append(names, name)
				bytes += len(strings.Join(values, ""))
			}
		}
		slices.Sort(names)
		return names, bytes
	}
	rawNames, rawBytes := total(raw)
	names, bytes := total(ours)
	if !slices.Equal(rawNames, names) || rawBytes < bytes || rawBytes > bytes+3 { // zeros at the end of a time are not written
		t.Errorf("raw sends %v, omnibus %v", raw, ours)
	}
}
