package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/internal/bench"
)

// Every row of every implementation works on the server of OMNIBUS_RABBITMQ_URL and loses nothing; the figures are worth nothing.
func TestRabbitMQ(t *testing.T) {
	all, failing := len(bench.Shapes()), len(bench.Failing())
	wantRows(t, "rabbitmq", "10ms", map[string]int{"raw": all, "omnibus": all + failing, "watermill": all - 1, "watermill-prefetch": all - 1, "gocloud": all - 3, "ideal": 1},
		"rabbitmq 4.", "watermill, no asynchronous publish: 1 rows", "gocloud, it knows no keys: 1 rows")
}

// Raw puts the headers on the wire that omnibus does: the same names, and values as long. Both remove their queues.
func TestRabbitMQRawSendsTheSameBytes(t *testing.T) {
	url := serverURL(t, "rabbitmq")
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
