package nats_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	client "github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
)

func coreURL(b *containers.Broker) string {
	return strings.Replace(b.URL(), "nats://", "nats+core://", 1)
}

// noLeak fails t if a goroutine is left that began after this call.
func noLeak(t *testing.T) {
	t.Helper()
	ignore := []goleak.Option{ // the rest is connections to the container engine
		goleak.IgnoreCurrent(), goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
	}
	t.Cleanup(func() {
		if err := goleak.Find(ignore...); err != nil {
			t.Error(err)
		}
	})
}

func openCore(t *testing.T, b *containers.Broker, opts *pubsub.Options) *pubsub.Broker {
	t.Helper()
	broker, err := nats.Open(t.Context(), coreURL(b), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() }) // tests that care close themselves
	return broker
}

// outsider connects a client that knows nothing of this module.
func outsider(t *testing.T, b *containers.Broker) *client.Conn {
	t.Helper()
	nc, err := client.Connect(b.URL(), client.MaxReconnects(-1), client.ReconnectWait(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func coreSub(topic, group string) pubsub.Subscription {
	return pubsub.Subscription{Topic: topic, Group: group, Order: pubsub.OrderPerMember, DeadLetter: pubsub.DeadLetter{Drop: true}}
}

func subscribe(t *testing.T, b *pubsub.Broker, s pubsub.Subscription, h pubsub.Handler) *pubsub.Consumer {
	t.Helper()
	c, err := b.Subscribe(t.Context(), s, h)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func publish(t *testing.T, b *pubsub.Broker, topic string, msgs ...pubsub.Message) {
	t.Helper()
	if err := b.PublishBatch(t.Context(), topic, msgs); err != nil {
		t.Fatal(err)
	}
}

func TestCoreConformance(t *testing.T) {
	b := containers.ForTest(t, "nats", "default")
	h := conformance.Harness{
		Driver: func(ctx context.Context) (pubsub.Driver, error) {
			cfg, err := nats.ParseURL(coreURL(b))
			if err != nil {
				return nil, err
			}
			return cfg.Driver(ctx)
		},
		OpenURL: func(ctx context.Context, parameters url.Values) (*pubsub.Broker, error) {
			return nats.Open(ctx, coreURL(b)+"?"+parameters.Encode(), nil)
		},
		Variant:       "core",
		ServerVersion: b.Version(),
		ClientVersion: client.Version,
	}
	if b.Ours() {
		h.Kill, h.Start = b.Kill, b.Restart
	}
	conformance.Run(t, h)
}

func TestCoreParameters(t *testing.T) {
	for _, p := range []string{"domain=d", "stream=s", "replicas=0", "retention=1h", "max_bytes=1", "storage=file", "dedup=1m", "durability=memory"} {
		name, _, _ := strings.Cut(p, "=")
		_, err := nats.Open(t.Context(), "nats+core://127.0.0.1:1?"+p, nil)
		if pubsub.CodeOf(err) != pubsub.ErrInvalid || !strings.Contains(err.Error(), strconv.Quote(name)) || !strings.Contains(err.Error(), "nats+core") {
			t.Errorf("%s: %v", p, err)
		}
	}
	_, err := nats.Config{Core: true, Stream: "s"}.Open(t.Context(), nil)
	if pubsub.CodeOf(err) != pubsub.ErrInvalid || !strings.Contains(err.Error(), "Stream") {
		t.Errorf("Core with a stream: %v", err)
	}
	c, err := nats.ParseURL("nats+core://u:p@one:4222,two:4333?tls=true&name=n")
	if err != nil || !c.Core || len(c.Servers) != 2 || c.User != "u" || !c.TLS || c.Name != "n" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestCore(t *testing.T) {
	b := containers.ForTest(t, "nats", "default")
	for _, x := range []struct {
		name string
		run  func(*testing.T, *containers.Broker)
	}{
		{"Capabilities", coreCapabilities}, {"Foreign", coreForeign}, {"QueueGroups", coreQueueGroups}, {"Patterns", corePatterns},
		{"Bounded", coreBounded}, {"SlowConsumer", coreSlowConsumer}, {"Retries", coreRetries}, {"DrainFinishes", coreDrainFinishes},
		{"DrainReports", coreDrainReports},
	} {
		t.Run(x.name, func(t *testing.T) {
			noLeak(t)
			x.run(t, b)
		})
	}
}

// What core NATS does not have is refused by name, not left out.
func coreCapabilities(t *testing.T, b *containers.Broker) {
	broker := openCore(t, b, nil)
	caps := broker.Capabilities()
	if caps.Durability != pubsub.None || !caps.OptedDown || caps.Redelivery || caps.History || !caps.Patterns || caps.MaxMessage == 0 {
		t.Errorf("%+v", caps)
	}
	for name, topology := range map[string]pubsub.Topology{
		"a setting": {Topics: []pubsub.TopicSpec{{Name: "a", Retention: time.Hour}}},
		"a group":   {Groups: []pubsub.Subscription{coreSub("a", "g")}},
	} {
		if err := broker.Ensure(t.Context(), topology); pubsub.CodeOf(err) != pubsub.ErrUnsupported {
			t.Errorf("Ensure of %s: %v", name, err)
		}
	}
	if err := broker.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "a"}}}); err != nil {
		t.Errorf("Ensure of a topic: %v", err)
	}
	if err := broker.DeliverTo(t.Context(), "a", "g", pubsub.Message{}); pubsub.CodeOf(err) != pubsub.ErrUnsupported {
		t.Errorf("DeliverTo: %v", err)
	}
	for _, s := range []pubsub.Subscription{{Topic: "a", Group: "g", DeadLetter: pubsub.DeadLetter{Drop: true}}, {Topic: "a", Group: "g", Order: pubsub.OrderNone}} {
		if _, err := broker.Subscribe(t.Context(), s, func(context.Context, *pubsub.Delivery) error { return nil }); pubsub.CodeOf(err) != pubsub.ErrUnsupported {
			t.Errorf("Subscribe without an order or a dead letter named: %v", err)
		}
	}
	if nc, ok := pubsub.As[*client.Conn](broker); !ok || !nc.IsConnected() {
		t.Error("no native client")
	}
}

// Messages go both ways between this module and a client that knows nothing of it.
func coreForeign(t *testing.T, b *containers.Broker) {
	broker, nc := openCore(t, b, nil), outsider(t, b)
	got := make(chan *pubsub.Delivery, 1)
	subscribe(t, broker, coreSub("from.foreign", "g"), func(_ context.Context, d *pubsub.Delivery) error {
		if m, ok := pubsub.As[*client.Msg](d); !ok || m.Subject != "from.foreign" {
			t.Error("no native message")
		}
		got <- d
		return nil
	})
	m := client.NewMsg("from.foreign")
	m.Data = []byte{0, 0xff, '\n'}
	m.Header["a"] = []string{"1", "2"}
	m.Header["Content-Type"] = []string{"text/plain"}
	m.Header["Omnibus-Key"] = []string{"k"}
	if err := nc.PublishMsg(m); err != nil {
		t.Fatal(err)
	}
	d := <-got
	if string(d.Payload) != string(m.Data) || d.ContentType != "text/plain" || d.Key != "k" || !slices.Equal(d.Headers, pubsub.Headers{{Name: "a", Value: "1"}, {Name: "a", Value: "2"}}) {
		t.Errorf("a foreign message came as %+v", d.Message)
	}

	sub, err := nc.SubscribeSync("to.foreign")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	publish(t, broker, "to.foreign", pubsub.Message{
		ID: "id", Key: "k", ContentType: "text/plain", Payload: m.Data, Headers: pubsub.Headers{{Name: "z", Value: "é"}, {Name: "a b", Value: " x\n"}, {Name: "z", Value: "2"}},
	})
	back, err := sub.NextMsg(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if string(back.Data) != string(m.Data) || back.Header.Get("Omnibus-Id") != "id" || back.Header.Get("Content-Type") != "text/plain" || back.Header.Get("Omnibus-Key") != "k" ||
		!slices.Equal(back.Header["z"], []string{"é", "2"}) || !slices.Equal(back.Header["a%20b"], []string{"%20x%0A"}) {
		t.Errorf("a foreign client got %v", back.Header)
	}
	subscribe(t, broker, coreSub("echo", "g"), func(_ context.Context, d *pubsub.Delivery) error {
		got <- d
		return nil
	})
	back.Subject, back.Reply = "echo", ""
	if err := nc.PublishMsg(back); err != nil {
		t.Fatal(err)
	}
	if d = <-got; d.ID != "id" || d.Headers[1] != (pubsub.Header{Name: "a b", Value: " x\n"}) || d.Headers[2].Value != "2" {
		t.Errorf("what a foreign client passed on came as %+v", d.Message)
	}
}

// A counter counts what its handlers get.
type counter struct {
	mu  sync.Mutex
	got map[string]int
}

func (c *counter) handle(_ context.Context, d *pubsub.Delivery) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.got == nil {
		c.got = map[string]int{}
	}
	c.got[d.ID]++
	return nil
}

func (c *counter) count() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.got {
		n += k
	}
	return n
}

func numbered(n int) []pubsub.Message {
	msgs := make([]pubsub.Message, n)
	for i := range msgs {
		msgs[i].ID = strconv.Itoa(i)
	}
	return msgs
}

// Members of a group share, foreign ones too; groups and Broadcast get all; a pattern's group is another than that of a topic it covers.
func coreQueueGroups(t *testing.T, b *containers.Broker) {
	const all = 600
	var one, two, other, tail, pattern counter
	for s, c := range map[*counter]pubsub.Subscription{
		&one: coreSub("queue.a", "g"), &two: coreSub("queue.a", "g"), &other: coreSub("queue.a", "other"), &tail: coreSub("queue.a", pubsub.Broadcast), &pattern: coreSub("queue.*", "g"),
	} {
		subscribe(t, openCore(t, b, nil), c, s.handle)
	}
	var theirs atomic.Int64
	nc := outsider(t, b)
	if _, err := nc.QueueSubscribe("queue.a", "g", func(*client.Msg) { theirs.Add(1) }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	publish(t, openCore(t, b, nil), "queue.a", numbered(all)...)
	poll.Until(t, "everybody has all", func() bool {
		return one.count()+two.count()+int(theirs.Load()) == all && other.count() == all && tail.count() == all && pattern.count() == all
	})
	if one.count() == 0 || two.count() == 0 || theirs.Load() == 0 {
		t.Errorf("members have %d, %d and a foreign one %d", one.count(), two.count(), theirs.Load())
	}
}

// A pattern covers topics, and not what clients say to each other.
func corePatterns(t *testing.T, b *containers.Broker) {
	broker, nc := openCore(t, b, nil), outsider(t, b)
	var some, everything counter
	subscribe(t, broker, coreSub("pattern.*.eu", "g"), some.handle)
	subscribe(t, broker, coreSub(">", "g"), func(ctx context.Context, d *pubsub.Delivery) error {
		if !strings.HasPrefix(d.Topic, "pattern.") {
			t.Errorf("> got a message of %s", d.Topic)
		}
		return everything.handle(ctx, d)
	})
	if _, err := nc.Subscribe("pattern.ask", func(m *client.Msg) { _ = m.Respond(nil) }); err != nil { // the answer is what counts
		t.Fatal(err)
	}
	if _, err := nc.Request("pattern.ask", nil, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	for i, topic := range []string{"pattern.orders.eu", "pattern.orders.us", "pattern.refunds.eu", "pattern.eu"} {
		publish(t, broker, topic, pubsub.Message{ID: strconv.Itoa(i)})
	}
	poll.Until(t, "all is there", func() bool { return everything.count() == 5 && some.count() == 2 })
	if some.got["0"] != 1 || some.got["2"] != 1 {
		t.Errorf("pattern.*.eu got %v", some.got)
	}
}

// A subscription that is full stops reading: it holds no more than it may, and what the network holds is not lost.
func coreBounded(t *testing.T, b *containers.Broker) {
	const all, limit = 5000, 10
	broker, nc := openCore(t, b, nil), outsider(t, b)
	s := coreSub("bounded", "g")
	s.MaxInFlight = limit
	var got counter
	free := make(chan struct{})
	c := subscribe(t, broker, s, func(ctx context.Context, d *pubsub.Delivery) error {
		<-free
		return got.handle(ctx, d)
	})
	for range 2 {
		for i := range all / 2 {
			m := client.NewMsg("bounded")
			m.Data = []byte(strings.Repeat("x", i%700))
			m.Header.Set("Omnibus-Id", strconv.Itoa(i))
			if err := nc.PublishMsg(m); err != nil {
				t.Fatal(err)
			}
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	// as good as full: with less than a quarter free nothing is asked for, so that messages are not fetched one at a time
	poll.Until(t, "it is full", func() bool { return c.State().InFlight > limit-limit/4 })
	close(free)
	poll.Until(t, "all is handled", func() bool { return got.count() == all })
}

// A consumer so slow that the server cuts it off says so, and goes on.
func coreSlowConsumer(t *testing.T, b *containers.Broker) {
	const all = 400 // 200 MB: the server keeps at most 64 for a connection, and each hop on the way to us some 10 more
	var mu sync.Mutex
	var reasons []error
	var again atomic.Int64
	broker, nc := openCore(t, b, &pubsub.Options{Use: []pubsub.Middleware{{Name: "observer", Observe: func(ev pubsub.Event) {
		switch ev.Kind {
		case pubsub.EventDisconnected:
			mu.Lock()
			reasons = append(reasons, ev.Err)
			mu.Unlock()
		case pubsub.EventReconnected:
			again.Add(1)
		}
	}}}}), outsider(t, b)
	s := coreSub("slow.one", "g")
	s.MaxInFlight = 4
	free := make(chan struct{})
	var handled atomic.Int64
	last := make(chan struct{})
	subscribe(t, broker, s, func(_ context.Context, d *pubsub.Delivery) error {
		<-free
		handled.Add(1)
		if d.ID == "last" {
			close(last)
		}
		return nil
	})
	payload := make([]byte, 512<<10)
	for range all {
		if err := nc.Publish("slow.one", payload); err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	close(free)
	poll.Until(t, "it is connected again", func() bool { return again.Load() > 0 })
	mu.Lock()
	if !strings.Contains(fmt.Sprint(reasons[0]), "slow consumer") {
		t.Errorf("the session ended with %v", reasons)
	}
	mu.Unlock()
	publish(t, broker, "slow.one", pubsub.Message{ID: "last"})
	<-last
	if n := handled.Load(); n >= all {
		t.Errorf("%d were handled: nothing was lost, and the test shows nothing", n)
	}
}

// Retries live in the process, and what is out of attempts is dropped, or goes where it is told.
func coreRetries(t *testing.T, b *containers.Broker) {
	broker := openCore(t, b, nil)
	var calls atomic.Int64
	dead := make(chan *pubsub.Delivery, 1)
	subscribe(t, broker, coreSub("retry.dead", "g"), func(_ context.Context, d *pubsub.Delivery) error {
		dead <- d
		return nil
	})
	s := coreSub("retry.main", "g")
	s.Retry = pubsub.Policy{MaxAttempts: 3, Delays: []time.Duration{20 * time.Millisecond}}
	s.DeadLetter = pubsub.DeadLetter{Topic: "retry.dead"}
	subscribe(t, broker, s, func(context.Context, *pubsub.Delivery) error {
		calls.Add(1)
		return errors.New("fails")
	})
	publish(t, broker, "retry.main", pubsub.Message{ID: "poison", Payload: []byte("p")})
	if d := <-dead; d.ID != "poison" || string(d.Payload) != "p" || d.Headers.Get("omnibus-dlq-reason") != "max-attempts" || calls.Load() != 3 {
		t.Errorf("after %d calls the dead letter is %+v", calls.Load(), d.Message)
	}
}

// A drain handles all that had come: nobody would take it back.
func coreDrainFinishes(t *testing.T, b *containers.Broker) {
	const all = 400
	broker := openCore(t, b, nil)
	s := coreSub("drain.all", "g")
	s.MaxInFlight, s.Concurrency = 8, 2
	s.Retry = pubsub.Policy{MaxAttempts: 2, Delays: []time.Duration{50 * time.Millisecond}}
	var got counter
	c := subscribe(t, broker, s, func(ctx context.Context, d *pubsub.Delivery) error {
		time.Sleep(time.Millisecond) // of work: when the drain begins there is much left
		if d.Attempt == 1 && len(d.ID) == 1 {
			return errors.New("fails once")
		}
		return got.handle(ctx, d)
	})
	publish(t, broker, "drain.all", numbered(all)...)
	if err := c.Drain(t.Context()); err != nil {
		t.Errorf("Drain: %v", err)
	}
	if n := got.count(); n != all {
		t.Errorf("%d of %d were handled", n, all)
	}
	if err := broker.Publish(t.Context(), "drain.all", pubsub.Message{}); pubsub.CodeOf(err) != pubsub.ErrUnroutable {
		t.Errorf("a publish without a subscriber: %v", err)
	}
}

// What a drain cannot handle in its time is lost, and it says so.
func coreDrainReports(t *testing.T, b *containers.Broker) {
	broker := openCore(t, b, &pubsub.Options{DrainTimeout: 300 * time.Millisecond})
	s := coreSub("drain.some", "g")
	s.MaxInFlight = 8
	running := make(chan struct{}, 100)
	subscribe(t, broker, s, func(ctx context.Context, _ *pubsub.Delivery) error {
		running <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	publish(t, broker, "drain.some", numbered(30)...)
	<-running
	err := broker.Close()
	if !errors.Is(err, pubsub.ErrTimeout) || !strings.Contains(err.Error(), "are lost") {
		t.Errorf("Close with messages that nobody has handled: %v", err)
	}
}

// A broker that is killed in mid-run: no publish is nil that it has not read, handlers that run go on, and both sides come back.
func TestCoreKilled(t *testing.T) {
	b := containers.OwnForTest(t, "nats", "default")
	noLeak(t)
	var down, up atomic.Int64
	broker := openCore(t, b, &pubsub.Options{Use: []pubsub.Middleware{{Name: "observer", Observe: func(ev pubsub.Event) {
		switch ev.Kind {
		case pubsub.EventDisconnected:
			down.Add(1)
		case pubsub.EventReconnected:
			up.Add(1)
		}
	}}}})
	var got counter
	hold, held, cut := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	s := coreSub("killed", "g")
	s.Concurrency = 2
	c := subscribe(t, broker, s, func(ctx context.Context, d *pubsub.Delivery) error {
		if d.ID == "held" {
			close(held)
			<-hold
			cut <- context.Cause(ctx)
		}
		return got.handle(ctx, d)
	})
	publish(t, broker, "killed", pubsub.Message{ID: "held"})
	<-held
	publish(t, broker, "killed", numbered(100)...)
	poll.Until(t, "the first are handled", func() bool { return got.count() == 100 })

	pub, err := broker.Publisher(pubsub.PublisherOptions{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	var dead atomic.Bool
	running.Go(func() { // under load
		for i := 0; !dead.Load(); i++ {
			_ = pub.Publish(t.Context(), "killed", pubsub.Message{ID: fmt.Sprint("load-", i)})
		}
	})
	if err := b.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	dead.Store(true)
	running.Wait()
	for range 3 {
		if err := pub.Publish(t.Context(), "killed", pubsub.Message{ID: "nobody"}); err == nil {
			t.Error("a publish to a dead broker returned nil")
		}
	}
	poll.Until(t, "State says so", func() bool { return c.State().Phase == pubsub.Reconnecting && c.State().Reason != nil })
	if err := b.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "both are back", func() bool { return down.Load() > 0 && up.Load() > 0 && c.State().Phase == pubsub.Running })
	close(hold)
	if err := <-cut; err != nil {
		t.Errorf("a handler that ran while the broker was killed was cancelled: %v", err)
	}
	before := got.count()
	if got.got["nobody"] > 0 {
		t.Error("a message came whose publish failed for certain")
	}
	publish(t, broker, "killed", numbered(50)...)
	poll.Until(t, "the last are handled", func() bool { return got.count() >= before+50 && got.got["held"] == 1 })
	if err := broker.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}
