package containers_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/poll"
)

// The client of RabbitMQ that these tests use. It tries nothing twice: what a fault does is to be seen.

// startRabbitMQ starts a RabbitMQ broker for one test.
func startRabbitMQ(t *testing.T, variant string) *containers.Broker {
	t.Helper()
	return containers.ForTest(t, "rabbitmq", variant)
}

// A rabbitURL is what the broker's URL says.
type rabbitURL struct {
	scheme, vhost string
	addrs         []string
	query         url.Values
}

func parseRabbitMQ(t *testing.T, b *containers.Broker) (r rabbitURL) {
	t.Helper()
	u, err := url.Parse(b.URL())
	if err != nil {
		t.Fatal(err)
	}
	if r.query, err = url.ParseQuery(u.RawQuery); err != nil {
		t.Fatal(err)
	}
	r.scheme, r.addrs, r.vhost = u.Scheme, strings.Split(u.Host, ","), "/"
	if u.Path != "" {
		r.vhost = strings.TrimPrefix(u.Path, "/")
	}
	return r
}

// openRabbitMQ connects to one node.
func openRabbitMQ(t *testing.T, b *containers.Broker, addr string, p containers.Params) (*amqp.Connection, error) {
	t.Helper()
	u := parseRabbitMQ(t, b)
	c := amqp.Config{Vhost: u.vhost, Dial: amqp.DefaultDial(10 * time.Second), SASL: []amqp.Authentication{&amqp.PlainAuth{Username: "guest", Password: "guest"}}}
	switch {
	case p.Mechanism != "":
		c.SASL = []amqp.Authentication{&amqp.ExternalAuth{}}
	case p.User != "":
		c.SASL = []amqp.Authentication{&amqp.PlainAuth{Username: p.User, Password: p.Password}}
	}
	if p.CAFile != "" {
		c.TLSClientConfig = tlsConfig(t, p)
	}
	conn, err := amqp.DialConfig(u.scheme+"://"+addr, c)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = conn.CloseDeadline(time.Now().Add(time.Second)) })
	return conn, nil
}

// A rabbitLine is one channel that confirms, on one connection to one node.
type rabbitLine struct {
	conn *amqp.Connection
	*amqp.Channel
}

func rabbitLineTo(t *testing.T, b *containers.Broker, addr string) (l rabbitLine, err error) {
	t.Helper()
	if l.conn, err = openRabbitMQ(t, b, addr, b.Params); err != nil {
		return l, err
	}
	if l.Channel, err = l.conn.Channel(); err != nil {
		return l, err
	}
	return l, l.Confirm(false)
}

func newRabbitLine(t *testing.T, b *containers.Broker) rabbitLine {
	t.Helper()
	l, err := rabbitLineTo(t, b, parseRabbitMQ(t, b).addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// ask returns the answer to a question, once there is one.
func (l rabbitLine) ask() <-chan error {
	answer := make(chan error, 1)
	go func() { answer <- l.ExchangeDeclarePassive("amq.direct", "direct", true, false, false, false, nil) }()
	return answer
}

// publish returns the answer to a message, once there is one.
func (l rabbitLine) publish(queue, value string) <-chan error {
	answer := make(chan error, 1)
	go func() {
		d, err := l.PublishWithDeferredConfirm("", queue, true, false, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(value)})
		if err == nil && !d.Wait() {
			err = errors.New("not confirmed")
		}
		answer <- err
	}()
	return answer
}

// A rabbitQueue is a queue, and a line to it.
type rabbitQueue struct {
	b    *containers.Broker
	name string
	line rabbitLine
}

// newRabbitQueue makes a quorum queue with a message in it.
func newRabbitQueue(t *testing.T, b *containers.Broker, name string) *rabbitQueue {
	t.Helper()
	q := &rabbitQueue{b: b, name: name, line: newRabbitLine(t, b)}
	if _, err := q.line.QueueDeclare(name, true, false, false, false, amqp.Table{"x-queue-type": "quorum"}); err != nil {
		t.Fatal(err)
	}
	if err := <-q.send("kept"); err != nil {
		t.Fatal(err)
	}
	return q
}

func (q *rabbitQueue) send(value string) <-chan error { return q.line.publish(q.name, value) }

// mustSend sends by any node until it is confirmed.
func (q *rabbitQueue) mustSend(t *testing.T, value string) {
	t.Helper()
	addrs := parseRabbitMQ(t, q.b).addrs
	tries := 0
	poll.Until(t, value+" is confirmed", func() bool {
		l, err := rabbitLineTo(t, q.b, addrs[tries%len(addrs)])
		if tries++; err != nil {
			return false
		}
		q.line = l
		select {
		case err := <-q.send(value):
			return err == nil
		case <-time.After(5 * time.Second): // then another node may answer
			return false
		}
	})
}

// messages counts what the queue holds, once it can be asked; 0 if there is no such queue.
func (q *rabbitQueue) messages(t *testing.T) (n int64) {
	t.Helper()
	poll.Until(t, "the queue can be asked", func() bool {
		l, err := rabbitLineTo(t, q.b, parseRabbitMQ(t, q.b).addrs[0])
		if err != nil {
			return false
		}
		defer l.conn.Close()
		d, err := l.QueueDeclarePassive(q.name, true, false, false, false, nil)
		n = int64(d.Messages)
		gone, ok := errors.AsType[*amqp.Error](err)
		return err == nil || ok && gone.Code == amqp.NotFound
	})
	return n
}

// newRabbitStream makes a stream with messages in it.
func newRabbitStream(t *testing.T, b *containers.Broker, name string, messages int) {
	t.Helper()
	l := newRabbitLine(t, b)
	if _, err := l.QueueDeclare(name, true, false, false, false, amqp.Table{"x-queue-type": "stream"}); err != nil {
		t.Fatal(err)
	}
	for range messages {
		if err := <-l.publish(name, "kept"); err != nil {
			t.Fatal(err)
		}
	}
}

// wantStream reads the messages of a stream by way of a node, once that has its copy open: some time after it is ready.
func wantStream(t *testing.T, b *containers.Broker, addr, name string, messages int) {
	t.Helper()
	var got <-chan amqp.Delivery
	poll.Until(t, "the node has the stream open", func() bool {
		l, err := rabbitLineTo(t, b, addr)
		if err == nil {
			err = l.Qos(messages, 0, false)
		}
		if err == nil {
			got, err = l.Consume(name, "", false, false, false, false, amqp.Table{"x-stream-offset": "first"})
		}
		return err == nil
	})
	limit := time.After(30 * time.Second)
	for i := range messages {
		select {
		case _, open := <-got:
			if !open {
				t.Fatalf("the stream ends after %d messages, want %d", i, messages)
			}
		case <-limit:
			t.Fatalf("%d messages in the stream, want %d", i, messages)
		}
	}
}

// leader is the node that leads the queue.
func (q *rabbitQueue) leader(t *testing.T) *containers.Node {
	t.Helper()
	at := -1
	poll.Until(t, "the queue has a leader", func() bool {
		var info struct{ Leader string }
		for _, n := range q.b.Nodes() {
			if err := askManagement(t, n, "/api/queues/%2F/"+q.name, q.b.Params, &info); err != nil {
				continue
			}
			name, _, _ := strings.Cut(info.Leader, "@")
			at = slices.IndexFunc(q.b.Nodes(), func(n *containers.Node) bool { return n.Name() == name })
			return at >= 0
		}
		return false
	})
	return q.b.Nodes()[at]
}

// askManagement asks a node's management as a user.
func askManagement(t *testing.T, n *containers.Node, path string, p containers.Params, answer any) error {
	t.Helper()
	scheme, transport := "http", &http.Transport{DisableKeepAlives: true}
	if p.CAFile != "" {
		scheme, transport.TLSClientConfig = "https", tlsConfig(t, containers.Params{CAFile: p.CAFile})
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+"://"+n.Admin()+path, http.NoBody)
	if err != nil {
		return err
	}
	if p.User == "" {
		p.User, p.Password = "guest", "guest"
	}
	req.SetBasicAuth(p.User, p.Password)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}

// rabbitChatter keeps clients busy until the test ends: a black hole shows only where somebody speaks.
func rabbitChatter(t *testing.T, b *containers.Broker) {
	t.Helper()
	addr := parseRabbitMQ(t, b).addrs[0]
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil { // fails while the fault lasts
			conn, err := amqp.DialConfig("amqp://"+addr, amqp.Config{Dial: amqp.DefaultDial(50 * time.Millisecond)})
			if err == nil {
				_ = conn.CloseDeadline(time.Now().Add(50 * time.Millisecond))
			}
			time.Sleep(time.Millisecond) // leaves the others some of the machine
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}
