package containers_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/poll"
)

// chatter keeps a client busy until the test ends: a black hole shows only where somebody speaks.
func chatter(t *testing.T, b *containers.Broker) *nats.Conn {
	t.Helper()
	nc := connect(t, b, nats.PingInterval(time.Second))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			brief, end := context.WithTimeout(ctx, 50*time.Millisecond)
			_, _ = nc.RequestWithContext(brief, "$JS.API.INFO", nil) // fails while the fault lasts
			end()
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return nc
}

// Each fault that a soak may draw is seen to work, and afterwards the broker serves again.
func TestFaults(t *testing.T) {
	for variant, names := range map[string]string{
		"default": "pause, black hole, half-open, cut, latency",
		"cluster": "pause, black hole, half-open, cut, latency, kill nats-0, pause nats-0, wipe nats-0, " +
			"kill nats-1, pause nats-1, wipe nats-1, kill nats-2, pause nats-2, wipe nats-2",
	} {
		t.Run(variant, func(t *testing.T) {
			b := start(t, variant)
			nc := chatter(t, b)
			strikeAll(t, b, names, func() bool {
				_, err := nc.Request("$JS.API.INFO", nil, 2*time.Second)
				return err == nil
			})
		})
	}
}

func TestKafkaFaults(t *testing.T) {
	for variant, names := range map[string]string{
		"default": "pause, black hole, half-open, cut, latency",
		"cluster": "pause, black hole, half-open, cut, latency, kill kafka-0, pause kafka-0, wipe kafka-0, " +
			"kill kafka-1, pause kafka-1, wipe kafka-1, kill kafka-2, pause kafka-2, wipe kafka-2",
	} {
		t.Run(variant, func(t *testing.T) {
			b := startKafka(t, variant)
			k := newKafkaTopic(t, b, "orders")
			kafkaChatter(t, b)
			strikeAll(t, b, names, func() bool { return <-k.send("after") == nil })
		})
	}
}

func TestRabbitMQFaults(t *testing.T) {
	for variant, names := range map[string]string{
		"default": "pause, black hole, half-open, cut, latency",
		"cluster": "pause, black hole, half-open, cut, latency, kill rabbitmq-0, pause rabbitmq-0, wipe rabbitmq-0, " +
			"kill rabbitmq-1, pause rabbitmq-1, wipe rabbitmq-1, kill rabbitmq-2, pause rabbitmq-2, wipe rabbitmq-2",
	} {
		t.Run(variant, func(t *testing.T) {
			b := startRabbitMQ(t, variant)
			q := newRabbitQueue(t, b, "orders")
			rabbitChatter(t, b)
			strikeAll(t, b, names, func() bool { q.mustSend(t, "after"); return true })
		})
	}
}

func TestRedisFaults(t *testing.T) {
	all := "pause, black hole, half-open, cut, latency"
	for variant, size := range map[string]int{"default": 1, "cluster": 6, "sentinel": 5} {
		names := all
		for i := range size {
			if size > 1 {
				names += fmt.Sprintf(", kill redis-%d, pause redis-%[1]d, wipe redis-%[1]d", i)
			}
		}
		t.Run(variant, func(t *testing.T) {
			b := startRedis(t, variant)
			r := newRedisStream(t, b, "orders")
			redisChatter(t, b)
			strikeAll(t, b, names, func() bool { return <-r.send("after") == nil })
		})
	}
}

// strikeAll has every fault of a broker, which are to be those named, and sees it work and the broker serve again.
func strikeAll(t *testing.T, b *containers.Broker, names string, serves func() bool) {
	t.Helper()
	var got []string
	for _, f := range b.Faults() {
		got = append(got, f.Name)
		if f.Loses != strings.HasPrefix(f.Name, "wipe") {
			t.Errorf("%s loses data: %v", f.Name, f.Loses)
		}
		if last := f.Name[len(f.Name)-1]; last >= '1' && last <= '9' {
			continue // the same as of the first node
		}
		end := strike(t, f)
		time.Sleep(200 * time.Millisecond) // so long it lasts, and strikes who speaks meanwhile
		end()
		poll.Until(t, "the broker serves after "+f.Name, serves)
	}
	if all := strings.Join(got, ", "); all != names {
		t.Errorf("the faults are %s", all)
	}
}

// strike has a fault begin, and returns what ends it and sees that it had an effect.
func strike(t *testing.T, f conformance.Fault) (end func()) {
	t.Helper()
	mend, err := f.Strike(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", f.Name, err)
	}
	return func() {
		t.Helper()
		if effect, err := mend(t.Context()); err != nil || !effect {
			t.Errorf("%s: effect %v, %v", f.Name, effect, err)
		}
	}
}

// One node has no followers, and who is no node leads nothing.
func TestReplicasOfNobody(t *testing.T) {
	for variant, leader := range map[string]string{"default": "nats-0", "cluster": "nats-3"} {
		if pause, wipe, err := start(t, variant).Replicas(leader); err == nil || pause.Strike != nil || wipe.Strike != nil {
			t.Errorf("%s of %s: %v", leader, variant, err)
		}
	}
}

// A fault that strikes nobody says so: no client speaks, so nothing vanishes.
func TestFaultWithoutEffect(t *testing.T) {
	b := start(t, "default")
	for _, f := range b.Faults("black hole") {
		end, err := f.Strike(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if effect, err := end(t.Context()); effect || err != nil {
			t.Errorf("effect %v, %v", effect, err)
		}
	}
}

// Where a fault strikes only some nodes it fails, and those go on as before.
func TestFaultThatStrikesOnlySome(t *testing.T) {
	b := start(t, "cluster")
	if err := b.Nodes()[1].Kill(t.Context()); err != nil { // what is dead cannot be paused
		t.Fatal(err)
	}
	if _, err := b.Faults("pause")[0].Strike(t.Context()); err == nil {
		t.Fatal("it says that it has paused a dead process")
	}
	for _, i := range []int{0, 2} {
		nc, err := nats.Connect(b.Nodes()[i].Addr(), nats.Timeout(10*time.Second))
		if err != nil {
			t.Errorf("node %d is still paused: %v", i, err)
			continue
		}
		nc.Close()
	}
}

// What does not last until it is ended had no effect: somebody else lets the broker go on.
func TestPauseThatDoesNotLast(t *testing.T) {
	b := start(t, "default")
	end, err := b.Faults("pause")[0].Strike(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Unpause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if effect, _ := end(t.Context()); effect {
		t.Error("the broker went on meanwhile, and the pause had an effect")
	}
}
