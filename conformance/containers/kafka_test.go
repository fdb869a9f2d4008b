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

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/poll"
)

// Every variant stores a message, asks for what its Params say, and announces its proxies and nothing else.
func TestKafkaVariants(t *testing.T) {
	for _, variant := range containers.Variants("kafka") {
		if image(t, "kafka", variant) != image(t, "kafka", "") {
			continue // another version, whose image `make matrix` asks for: there the suite is the test
		}
		t.Run(variant, func(t *testing.T) {
			b := startKafka(t, variant)
			k := newKafkaTopic(t, b, "orders")
			if n := k.messages(t); n != 1 {
				t.Errorf("%d messages, want 1", n)
			}
			if !strings.HasPrefix(b.Version(), "4.") {
				t.Errorf("Version is %q", b.Version())
			}
			var proxies []string
			for _, n := range b.Nodes() {
				proxies = append(proxies, n.Addr())
			}
			known := k.client.Brokers()
			if len(known) != len(proxies) {
				t.Errorf("clients are told of %d brokers, not %d", len(known), len(proxies))
			}
			for _, n := range known {
				if !slices.Contains(proxies, n.Addr()) {
					t.Errorf("clients are told of %s, which is no proxy of %s", n.Addr(), proxies)
				}
			}
			for what, p := range strangers(t, b) {
				t.Run(what, func(t *testing.T) { wantRefused(t, b, p) })
			}
			t.Setenv(containers.URLVariable("kafka", variant), b.URL()+"?some=parameter")
			byURL := startKafka(t, variant)
			if got := byURL.Version(); got != b.Version() && (variant != "mtls" || got != "") { // TLS asks for a certificate before Kafka says a word
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

func image(t *testing.T, kind, variant string) string {
	t.Helper()
	name, err := containers.Image(kind, variant)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// strangers are those who do not have the credentials.
func strangers(t *testing.T, b *containers.Broker) map[string]containers.Params {
	t.Helper()
	right, all := b.Params, map[string]containers.Params{}
	if right == (containers.Params{}) {
		return all
	}
	all["without Params"] = containers.Params{}
	wrong := right
	switch {
	case right.Password != "":
		wrong.Password = "wr0ng"
		all["with a wrong password"] = wrong
	case right.Token != "": // the same claims, signed by nobody
		i := strings.LastIndexByte(right.Token, '.') + 1
		wrong.Token = right.Token[:i] + strings.Repeat("A", len(right.Token)-i)
		all["with a forged token"] = wrong
		var err error
		if wrong.Token, err = b.Token(-time.Minute); err != nil {
			t.Fatal(err)
		}
		all["with an old token"] = wrong
	case right.CertFile != "":
		wrong.CertFile, wrong.KeyFile = "", ""
		all["without a certificate"] = wrong
	}
	return all
}

func wantRefused(t *testing.T, b *containers.Broker, p containers.Params) {
	t.Helper()
	c := kafkaConfig(t, p)
	c.Net.ReadTimeout = 5 * time.Second
	l, err := openLine(t, addrs(b)[0], c)
	if err == nil {
		err = <-l.ask()
	}
	if err == nil {
		t.Error("served")
	}
	t.Log(err)
}

// Every fault of a node takes effect on a client, and ends.
func TestKafkaBreaks(t *testing.T) {
	b := startKafka(t, "default")
	broken{
		Broker: b,
		topic: func(t *testing.T, name string) topic {
			t.Helper()
			return newKafkaTopic(t, b, name)
		},
		line: func(t *testing.T) asker {
			t.Helper()
			return mustOpenLine(t, b)
		},
	}.test(t)
}

// A cluster confirms nothing that only the leader has. It goes on when a leader and all its data are gone, and gives both back, one leader
// after another.
func TestKafkaReplicas(t *testing.T) {
	b := startKafka(t, "cluster")
	k := newKafkaTopic(t, b, "orders")
	leader := k.leader(t, b)
	pause, _, err := b.Replicas(leader.Name())
	if err != nil {
		t.Fatal(err)
	}
	mend := strike(t, pause)
	answer := k.send("more")
	select {
	case err := <-answer:
		if err == nil {
			t.Error("confirmed without its followers")
		}
		mend()
	case <-time.After(3 * time.Second):
		mend()
		<-answer
	}
	k.mustSend(t, "more") // there may be another leader
	want := k.messages(t)

	for range b.Nodes() {
		_, wipe, err := b.Replicas(k.leader(t, b).Name())
		if err != nil {
			t.Fatal(err)
		}
		mend := strike(t, wipe)
		k.mustSend(t, "without its leader")
		want++
		mend()
	}
	if n := k.messages(t); n < want {
		t.Errorf("%d messages after every leader has lost its data, want %d", n, want)
	}
	if err := b.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := b.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("back after %v", time.Since(begin))
	if n := k.messages(t); n < want {
		t.Errorf("%d messages after all nodes were killed, want %d", n, want)
	}
}

// What does not speak Kafka is no broker, and a URL's secret is in no error.
func TestKafkaIsElsewhere(t *testing.T) {
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
			_, _ = io.WriteString(conn, "INFO {}\r\n") // as NATS says
			conn.Close()
		}
	}()
	for _, addr := range []string{"127.0.0.1:1", other.Addr().String()} {
		t.Setenv("OMNIBUS_KAFKA_URL", "kafka://user:hush@"+addr)
		if b, err := containers.Start(t.Context(), "kafka", ""); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%v, %v", b, err)
		}
	}
}

// A token can be had for any time. When it has expired the broker ends the connection, unless the client has shown another one.
func TestKafkaTokens(t *testing.T) {
	b := startKafka(t, "oauthbearer")
	p := b.Params
	var err error
	if p.Token, err = b.Token(3 * time.Second); err != nil {
		t.Fatal(err)
	}
	c := kafkaConfig(t, p)
	l, err := openLine(t, addrs(b)[0], c)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-l.ask(); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the connection is closed", func() bool { return <-l.ask() != nil })
	if _, err := startKafka(t, "default").Token(time.Hour); err == nil {
		t.Error("a token for a broker that asks for none")
	}
}

func TestKafkaPasswordsAreNewEachTime(t *testing.T) {
	a, b := startKafka(t, "plain"), startKafka(t, "plain")
	if a.Params.Password == "" || a.Params.Password == b.Params.Password {
		t.Error("credentials are not made anew")
	}
}

// A lent broker has no proxy: what it announces is itself.
func TestKafkaLend(t *testing.T) {
	err := containers.Lend(t.Context(), "kafka", "", func(url string) error {
		c := kafkaConfig(t, containers.Params{})
		client, err := sarama.NewClient([]string{strings.TrimPrefix(url, "kafka://")}, c)
		if err != nil {
			return err
		}
		defer client.Close()
		for _, n := range client.Brokers() {
			if "kafka://"+n.Addr() != url {
				t.Errorf("reached at %s, it announces %s", url, n.Addr())
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
