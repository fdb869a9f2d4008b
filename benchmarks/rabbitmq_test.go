package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/internal/bench"
)

// Every row of every implementation works on the server of OMNIBUS_RABBITMQ_URL and loses nothing; the figures are worth nothing.
func TestRabbitMQ(t *testing.T) {
	if os.Getenv("OMNIBUS_RABBITMQ_URL") == "" {
		t.Fatal("OMNIBUS_RABBITMQ_URL names no server: make benchmarks-rabbitmq starts one")
	}
	var out, log bytes.Buffer
	if code := run(t.Context(), []string{"-broker", "rabbitmq", "-reps", "1", "-each", "10ms"}, &out, &log); code != 0 {
		t.Fatalf("exit code %d\n%s", code, &log)
	}
	rows := map[string]int{}
	for line := range strings.Lines(out.String()) {
		if f := strings.Fields(line); len(f) == 15 {
			rows[f[4]]++
		}
	}
	all, failing := len(bench.Shapes()), len(bench.Failing())
	for impl, want := range map[string]int{"raw": all, "omnibus": all + failing, "watermill": all - 1, "watermill-prefetch": all - 1, "gocloud": all - 3, "ideal": 1} {
		if rows[impl] != want {
			t.Errorf("%s has %d rows, want %d", impl, rows[impl], want)
		}
	}
	for _, want := range []string{"rabbitmq 4.", "watermill, no asynchronous publish: 1 rows", "gocloud, it knows no keys: 1 rows"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output does not say %q", want)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

// Raw puts the headers on the wire that omnibus does: the same names, and values as long. Both remove their queues.
func TestRabbitMQRawSendsTheSameBytes(t *testing.T) {
	url := os.Getenv("OMNIBUS_RABBITMQ_URL")
	if url == "" {
		t.Fatal("OMNIBUS_RABBITMQ_URL names no server: make benchmarks-rabbitmq starts one")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m := bench.Message{ID: fmt.Sprintf("%021d", 7), Key: "key-00001", ContentType: "application/octet-stream", Payload: []byte("x")}
	topic := fmt.Sprintf("bench.bytes-%d", time.Now().UnixNano())
	stored := func(open func(*rabbitSide) (*bench.Client, error)) amqp.Delivery {
		t.Helper()
		var sides []*rabbitSide
		for range 2 {
			s, err := openRabbitSide(url, false)
			if err != nil {
				t.Fatal(err)
			}
			sides = append(sides, s)
		}
		s, own := sides[0], sides[1]
		defer func() {
			if err := own.remove(); err != nil {
				t.Error(err)
			}
		}()
		c, err := open(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Prepare(ctx, topic, []string{"g"}); err != nil {
			t.Fatal(err)
		}
		if err := c.Publish(ctx, topic, m); err != nil {
			t.Fatal(err)
		}
		in, err := own.ch.ConsumeWithContext(ctx, rabbitQueue(topic, "g"), "", true, false, false, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		d := <-in
		if err := c.Close(ctx); err != nil {
			t.Error(err)
		}
		q, err := own.ch.QueueDeclarePassive(rabbitQueue(topic, "g"), true, false, false, false, nil)
		if err == nil {
			t.Errorf("queue %s is left", q.Name)
		}
		if own.ch, err = own.conn.Channel(); err != nil { // the server has closed it
			t.Fatal(err)
		}
		return d
	}
	raw := stored(openRabbit)
	ours := stored(func(s *rabbitSide) (*bench.Client, error) { return openRabbitOmnibus(ctx, url, s) })
	shape := func(d amqp.Delivery) string {
		return fmt.Sprintf("%d headers, omnibus.key %v, omnibus.ns %T, %s, mode %d, time %t, exchange %t, key %s, body %s", len(d.Headers), d.Headers["omnibus.key"],
			d.Headers["omnibus.ns"], d.ContentType, d.DeliveryMode, !d.Timestamp.IsZero(), d.Exchange != "", d.RoutingKey, d.Body)
	}
	if shape(raw) != shape(ours) || len(raw.MessageId) != len(ours.MessageId) {
		t.Errorf("raw sends %s, id %q\nomnibus %s, id %q", shape(raw), raw.MessageId, shape(ours), ours.MessageId)
	}
}
