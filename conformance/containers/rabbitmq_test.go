package containers_test

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/conformance/containers"
)

// Every variant stores a message, and asks for what its Params say, also at its management.
func TestRabbitMQVariants(t *testing.T) {
	for _, variant := range containers.Variants("rabbitmq") {
		if image(t, "rabbitmq", variant) != image(t, "rabbitmq", "") {
			continue // another version, whose image `make matrix` asks for: there the suite is the test
		}
		t.Run(variant, func(t *testing.T) {
			b := startRabbitMQ(t, variant)
			q := newRabbitQueue(t, b, "orders")
			if n := q.messages(t); n != 1 {
				t.Errorf("%d messages, want 1", n)
			}
			if got := q.line.conn.Properties["version"]; got != b.Version() || !strings.HasPrefix(b.Version(), "4.") {
				t.Errorf("Version is %q, the client says %q", b.Version(), got)
			}
			u := parseRabbitMQ(t, b)
			if secured := b.Params.CAFile != ""; secured != (u.scheme == "amqps") {
				t.Errorf("the scheme is %s", u.scheme)
			}
			if got := u.query.Get("queue_type"); (got == "classic") != (variant == "classic") {
				t.Errorf("queue_type is %q", got)
			}
			for _, n := range b.Nodes() {
				testManagement(t, n, b.Params)
			}
			for what, p := range rabbitStrangers(b) {
				t.Run(what, func(t *testing.T) {
					_, err := openRabbitMQ(t, b, u.addrs[0], p)
					if err == nil {
						t.Error("served")
					}
					t.Log(err)
				})
			}
			t.Setenv(containers.URLVariable("rabbitmq", variant), b.URL())
			byURL := startRabbitMQ(t, variant)
			if got := byURL.Version(); got != b.Version() && (variant != "mtls" || got != "") { // TLS asks for a certificate before RabbitMQ says a word
				t.Errorf("by URL the version is %q, not %q", got, b.Version())
			}
			if err := byURL.Kill(t.Context()); !errors.Is(err, containers.ErrNotOurs) {
				t.Error(err)
			}
			if err := b.Close(t.Context()); err != nil {
				t.Error(err)
			}
			for _, path := range []string{b.Params.CAFile, b.Params.KeyFile} {
				if _, err := os.Stat(path); path != "" && !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s is still there after Close: %v", path, err)
				}
			}
		})
	}
}

// testManagement sees that a node's management tells its clients which queues there are, and strangers nothing.
func testManagement(t *testing.T, n *containers.Node, p containers.Params) {
	t.Helper()
	var queues []struct{ Name, Type string }
	if err := askManagement(t, n, "/api/queues?disable_stats=true", p, &queues); err != nil || len(queues) != 1 || queues[0].Name != "orders" || queues[0].Type != "quorum" {
		t.Errorf("the queues of %s are %+v: %v", n.Name(), queues, err)
	}
	if p.User == "" {
		p.User = "guest"
	}
	p.Password = "wr0ng"
	if err := askManagement(t, n, "/api/queues", p, &queues); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("%s answers to a wrong password with %v", n.Name(), err)
	}
}

// rabbitStrangers are those who do not have the credentials.
func rabbitStrangers(b *containers.Broker) map[string]containers.Params {
	right, wrong := b.Params, b.Params
	wrong.User, wrong.Password = "guest", "wr0ng"
	all := map[string]containers.Params{"with a wrong password": wrong}
	if right == (containers.Params{}) {
		return all
	}
	all["without Params"] = containers.Params{}
	if right.CertFile != "" {
		delete(all, "with a wrong password") // which nobody asks for
		wrong = right
		wrong.CertFile, wrong.KeyFile = "", ""
		all["without a certificate"] = wrong
		wrong = right
		wrong.Mechanism = ""
		all["with a password"] = wrong
	} else if right.User != "" {
		wrong.User = right.User
		all["with a wrong password"] = wrong
	}
	return all
}

// Certificates of another authority are refused on either side.
func TestRabbitMQAuthorities(t *testing.T) {
	a, b := startRabbitMQ(t, "mtls"), startRabbitMQ(t, "mtls")
	addr := parseRabbitMQ(t, a).addrs[0]
	p := a.Params
	p.CAFile = b.Params.CAFile
	if _, err := openRabbitMQ(t, a, addr, p); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("the server's certificate: %v", err)
	}
	p = a.Params
	p.CertFile, p.KeyFile = b.Params.CertFile, b.Params.KeyFile
	if _, err := openRabbitMQ(t, a, addr, p); err == nil {
		t.Error("the client's certificate is accepted")
	}
	if _, err := openRabbitMQ(t, a, addr, a.Params); err != nil {
		t.Error(err)
	}
}

// A quorum queue that was declared less than about a second before its server is killed comes back empty.
const rabbitYoung = 2 * time.Second

// Every fault of a node takes effect on a client, and ends.
func TestRabbitMQBreaks(t *testing.T) {
	b := startRabbitMQ(t, "default")
	broken{
		Broker: b,
		topic: func(t *testing.T, name string) topic {
			t.Helper()
			return newRabbitQueue(t, b, name)
		},
		line: func(t *testing.T) asker {
			t.Helper()
			return newRabbitLine(t, b)
		},
		young: rabbitYoung,
	}.test(t)
	t.Run("watcher", func(t *testing.T) { testWatcher(t, b) })
	t.Run("kill at once", func(t *testing.T) {
		q := newRabbitQueue(t, b, "young")
		if err := b.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.Restart(t.Context()); err != nil { // it does not wait for a leader that is never elected
			t.Fatal(err)
		}
		if n := q.messages(t); n != 0 {
			t.Errorf("%d messages: what is said of young queues does not hold any more", n)
		}
	})
}

// What this package itself asks the management with is no way to use the broker.
func testWatcher(t *testing.T, b *containers.Broker) {
	t.Helper()
	q := newRabbitQueue(t, b, "watched")
	conn, err := openRabbitMQ(t, b, b.Nodes()[0].Addr(), containers.Params{User: "omnibus-watcher", Password: "omnibus-watcher"})
	if err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]func(ch *amqp.Channel) error{
		"make": func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclare("other", true, false, false, false, nil)
			return err
		},
		"read": func(ch *amqp.Channel) error { _, _, err := ch.Get("watched", true); return err },
		"write": func(ch *amqp.Channel) error {
			if err := ch.Confirm(false); err != nil {
				return err
			}
			closed := ch.NotifyClose(make(chan *amqp.Error, 1))
			if _, err := ch.PublishWithDeferredConfirm("", "watched", true, false, amqp.Publishing{}); err != nil {
				return err
			}
			return <-closed
		},
	} {
		ch, err := conn.Channel()
		if err != nil {
			t.Fatal(err)
		}
		err = try(ch)
		if refused, ok := errors.AsType[*amqp.Error](err); !ok || refused.Code != amqp.AccessRefused {
			t.Errorf("it may %s: %v", name, err)
		}
	}
	if n := q.messages(t); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
}

// Nodes go on when one of them has gone, and take it back.
func TestRabbitMQReplicas(t *testing.T) {
	b := startRabbitMQ(t, "cluster")
	q := newRabbitQueue(t, b, "orders")
	newRabbitStream(t, b, "log", 10)
	time.Sleep(rabbitYoung)
	leader := q.leader(t)
	pause, _, err := b.Replicas(leader.Name())
	if err != nil {
		t.Fatal(err)
	}
	if q.line, err = rabbitLineTo(t, b, leader.Addr()); err != nil {
		t.Fatal(err)
	}
	mend := strike(t, pause)
	answer := q.send("more")
	select {
	case err := <-answer:
		if err == nil {
			t.Error("confirmed without its followers")
		}
		mend()
	case <-time.After(3 * time.Second):
		mend()
		if err := <-answer; err != nil {
			t.Error(err)
		}
	}
	q.mustSend(t, "more")
	want := q.messages(t)
	nodes := slices.DeleteFunc(slices.Clone(b.Nodes()), func(n *containers.Node) bool { return n == leader })
	for _, n := range append([]*containers.Node{leader}, nodes...) {
		_, wipe, err := b.Replicas(n.Name())
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		mend := strike(t, wipe)
		q.mustSend(t, "without one node")
		want++
		t.Logf("goes on after %v", time.Since(begin))
		begin = time.Now()
		mend()
		t.Logf("the node is back after %v", time.Since(begin))
		wantStream(t, b, n.Addr(), "log", 10)
	}
	if n := q.messages(t); n < want {
		t.Errorf("%d messages after every node has lost its data, want %d", n, want)
	}
	if err := b.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := b.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("back after %v", time.Since(begin))
	if n := q.messages(t); n < want {
		t.Errorf("%d messages after all nodes were killed, want %d", n, want)
	}
}

// What does not speak AMQP is no broker, and a URL's secret is in no error.
func TestRabbitMQIsElsewhere(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	go func() {
		for {
			conn, err := other.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, strings.Repeat("INFO {}\r\n", 10)) // as NATS says
			conn.Close()
		}
	}()
	for _, addr := range []string{"127.0.0.1:1", other.Addr().String()} {
		t.Setenv("OMNIBUS_RABBITMQ_URL", "amqp://user:hush@"+addr)
		if b, err := containers.Start(t.Context(), "rabbitmq", ""); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%v, %v", b, err)
		}
	}
}

// A lent broker has no proxy, and clients of it need no more than its URL.
func TestRabbitMQLend(t *testing.T) {
	err := containers.Lend(t.Context(), "rabbitmq", "classic", func(url string) error {
		conn, err := amqp.Dial(url)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		t.Error(err)
	}
}
