package kafka_test

import (
	"cmp"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A fake is a broker that answers by what it was told, with a door before it that holds requests back.
type fake struct {
	mock    *sarama.MockBroker
	address string // of the door
	shut    atomic.Bool
	arrived chan struct{} // a request is before the door
	open    chan struct{}
}

func newFake(t *testing.T) *fake {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{mock: sarama.NewMockBroker(t, 1), address: listener.Addr().String(), arrived: make(chan struct{}), open: make(chan struct{})}
	var all sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		f.mock.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", f.mock.Addr())
			if err != nil {
				_ = in.Close()
				return
			}
			all.Go(func() { f.pass(in, out) })
			all.Go(func() {
				_, _ = io.Copy(in, out)
				_ = in.Close()
			})
		}
	})
	f.answer(nil, f.metadata())
	return f
}

// pass lets requests through the door.
func (f *fake) pass(in, out net.Conn) {
	defer func() { _ = out.Close() }()
	buf := make([]byte, 64<<10)
	for {
		n, err := in.Read(buf)
		if err != nil {
			return
		}
		if f.shut.Load() {
			f.arrived <- struct{}{}
			<-f.open
		}
		if _, err := out.Write(buf[:n]); err != nil {
			return
		}
	}
}

// metadata names topics with one partition each.
func (f *fake) metadata(topics ...string) *sarama.MockMetadataResponse {
	m := sarama.NewMockMetadataResponse(nil).SetBroker(f.address, 1).SetController(1)
	for _, topic := range topics {
		m.SetLeader(topic, 0, 1)
	}
	return m
}

// cluster is what three brokers say, which are all this one: each has all topics.
func (f *fake) cluster(topics ...string) *sarama.MockMetadataResponse {
	_, port, _ := net.SplitHostPort(f.address)
	m := f.metadata(topics...)
	for i, host := range []string{"localhost", "::ffff:127.0.0.1"} {
		m.SetBroker(net.JoinHostPort(host, port), int32(2+i))
	}
	return m
}

// answer says which topics there are, one answer after the other, and what the settings of everything are.
func (f *fake) answer(settings map[string]string, metadata ...any) {
	configs := &sarama.DescribeConfigsResponse{Version: 2, Resources: []*sarama.ResourceResponse{{}}}
	for name, value := range settings {
		configs.Resources[0].Configs = append(configs.Resources[0].Configs, &sarama.ConfigEntry{Name: name, Value: value})
	}
	var keys []sarama.ApiVersionsResponseKey
	for key, version := range map[int16]int16{0: 8, 3: 8, 18: 3, 19: 4, 22: 4, 32: 2} { // produce, metadata, versions, topics, producer ids, settings
		keys = append(keys, sarama.ApiVersionsResponseKey{ApiKey: key, MaxVersion: version})
	}
	f.mock.SetHandlerByMap(map[string]sarama.MockResponse{
		"ApiVersionsRequest":     sarama.NewMockApiVersionsResponse(nil).SetApiKeys(keys),
		"MetadataRequest":        sarama.NewMockSequence(metadata...),
		"DescribeConfigsRequest": sarama.NewMockWrapper(configs),
		"CreateTopicsRequest":    sarama.NewMockCreateTopicsResponse(nil),
		"InitProducerIDRequest":  sarama.NewMockInitProducerIDResponse(nil).SetProducerID(7),
		"ProduceRequest":         sarama.NewMockProduceResponse(nil),
	})
}

// producer opens a session. What becomes of its messages comes by the channel.
func (f *fake) producer(t *testing.T, cfg kafka.Config) (pubsub.Driver, pubsub.Producer, <-chan pubsub.Result) {
	t.Helper()
	cfg.Servers = []string{f.address}
	d, err := cfg.Driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(t.Context()) })
	results := make(chan pubsub.Result, 100)
	p, err := d.OpenProducer(t.Context(), pubsub.ProducerSpec{Ack: pubsub.AckDurable}, func(rs []pubsub.Result) {
		for _, r := range rs {
			results <- r
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return d, p, results
}

// TestCloseWhileTopicIsLookedFor: a session that ends while Send looks for a topic takes no message, for nobody would tell its fate.
func TestCloseWhileTopicIsLookedFor(t *testing.T) {
	f := newFake(t)
	_, p, results := f.producer(t, kafka.Config{})
	f.answer(nil, f.metadata(outletTopic))
	f.shut.Store(true)
	var n int
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		n, err = p.Send(t.Context(), []pubsub.Out{{Seq: 1, To: pubsub.Place{Topic: outletTopic}, Msg: &pubsub.Message{}}})
	}()
	<-f.arrived
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.shut.Store(false)
	close(f.open)
	<-done
	if n != 0 || err == nil || len(results) > 0 {
		t.Errorf("the closed session took %d messages, with %v", n, err)
	}
}

// TestStaleMetadata: a broker that does not know a topic yet does not get what goes there refused.
func TestStaleMetadata(t *testing.T) {
	f := newFake(t)
	_, p, results := f.producer(t, kafka.Config{})
	f.answer(nil, f.metadata(), f.metadata(), f.metadata(outletTopic))
	publish := func(topic string) (pubsub.Result, time.Duration) {
		start := time.Now()
		if n, err := p.Send(t.Context(), []pubsub.Out{{Seq: 1, To: pubsub.Place{Topic: topic}, Msg: &pubsub.Message{}}}); n != 1 || err != nil {
			t.Fatalf("took %d messages, with %v", n, err)
		}
		return <-results, time.Since(start)
	}
	if r, _ := publish(outletTopic); r.Fate != pubsub.FateAccepted {
		t.Errorf("the topic that came later got fate %v, with %v", r.Fate, r.Err)
	}
	for i := range 3 {
		r, took := publish("nowhere")
		if code, _ := kafka.Classify(r.Err); r.Fate != pubsub.FateRefused || code != pubsub.ErrUnroutable {
			t.Errorf("the missing topic got fate %v, with %v", r.Fate, r.Err)
		}
		if (took >= time.Second) != (i == 0) {
			t.Errorf("refusal %d took %v", i+1, took)
		}
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestDeclaredDurability: what is asked for is not less than what is declared, and what is declared is checked.
func TestDeclaredDurability(t *testing.T) {
	f := newFake(t)
	f.answer(nil, f.cluster())
	for accept, want := range map[pubsub.Durability]pubsub.Durability{
		0: pubsub.Replicated, pubsub.Memory: pubsub.Process, pubsub.Process: pubsub.Process, pubsub.Disk: pubsub.Replicated, pubsub.Replicated: pubsub.Replicated,
	} {
		d, _, _ := f.producer(t, kafka.Config{Accept: accept})
		if got := d.Capabilities(); got.Durability != want || got.OptedDown != (accept == pubsub.Memory) {
			t.Errorf("where %v is accepted, %v is declared, opted down: %v", accept, got.Durability, got.OptedDown)
		}
	}
}

// TestReplicasOfTopics: how many replicas must have what is confirmed goes by how many the topic has, not by how many others have.
func TestReplicasOfTopics(t *testing.T) {
	f := newFake(t)
	for _, c := range []struct {
		others, replicas int
		insync           string
	}{{3, 1, ""}, {3, 2, ""}, {1, 3, "2"}, {1, 0, ""}, {3, 0, "2"}} {
		f.answer(nil, f.metadata())
		d, _, _ := f.producer(t, kafka.Config{Replicas: c.others, Accept: pubsub.Process})
		f.answer(nil, f.metadata(), f.metadata(outletTopic))                                                                             // not there, then made
		_ = d.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: outletTopic, Replicas: c.replicas}}}, pubsub.Create) // the fake makes what it likes
		var made *sarama.TopicDetail
		for _, h := range f.mock.History() {
			if r, ok := h.Request.(*sarama.CreateTopicsRequest); ok {
				made = r.TopicDetails[outletTopic]
			}
		}
		insync := ""
		if v := made.ConfigEntries["min.insync.replicas"]; v != nil {
			insync = *v
		}
		if want := cmp.Or(c.replicas, c.others); int(made.ReplicationFactor) != want || insync != c.insync {
			t.Errorf("%d replicas and min.insync.replicas=%q, want %d and %q", made.ReplicationFactor, insync, want, c.insync)
		}
	}
	f.answer(nil, f.cluster())
	d, _, _ := f.producer(t, kafka.Config{})
	err := d.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "new", Replicas: 2}}}, pubsub.Create)
	if code, final := d.Classify(err); code != pubsub.ErrUnsupported || !final {
		t.Errorf("a topic that is less durable than declared: %v", err)
	}
}

// TestDurabilityOfTopics: nothing goes to a topic that can lose what it has confirmed where replicated is declared.
func TestDurabilityOfTopics(t *testing.T) {
	f := newFake(t)
	for _, c := range []struct {
		insync string
		topics *sarama.MockMetadataResponse
		accept pubsub.Durability
		want   pubsub.Fate
	}{
		{"2", f.cluster(outletTopic), 0, pubsub.FateAccepted},
		{"1", f.cluster(outletTopic), 0, pubsub.FateRefused},
		{"1", f.cluster(outletTopic), pubsub.Process, pubsub.FateAccepted},
		{"2", f.metadata(outletTopic), 0, pubsub.FateRefused}, // one replica
	} {
		f.answer(map[string]string{"min.insync.replicas": c.insync}, f.cluster())
		_, p, results := f.producer(t, kafka.Config{Accept: c.accept})
		f.answer(map[string]string{"min.insync.replicas": c.insync}, c.topics)
		for range 2 {
			if n, err := p.Send(t.Context(), []pubsub.Out{{Seq: 1, To: pubsub.Place{Topic: outletTopic}, Msg: &pubsub.Message{}}}); n != 1 || err != nil {
				t.Fatalf("took %d messages, with %v", n, err)
			}
			r := <-results
			if code, final := kafka.Classify(cmp.Or(r.Err, io.EOF)); r.Fate != c.want || r.Fate == pubsub.FateRefused && (code != pubsub.ErrConflict || !final) {
				t.Errorf("min.insync.replicas=%s, accepting %v: fate %v, with %v", c.insync, c.accept, r.Fate, r.Err)
			}
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	asked := 0
	for _, h := range f.mock.History() {
		if r, ok := h.Request.(*sarama.DescribeConfigsRequest); ok && r.Resources[0].Type == sarama.TopicResource {
			asked++
		}
	}
	if asked != 1+2+2 {
		t.Errorf("the topic's settings were read %d times: a good one once for a connection, a bad one for each message", asked)
	}
	f.answer(nil, f.metadata())
	for _, c := range []kafka.Config{{Replicas: 3}, {}} { // there is one broker
		if d, _, _ := f.producer(t, c); d.Capabilities().Durability != pubsub.Process {
			t.Errorf("one broker declares %v with %d replicas", d.Capabilities().Durability, c.Replicas)
		}
	}
}
