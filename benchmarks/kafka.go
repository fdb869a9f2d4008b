package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	wmkafka "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"
	gocloud "gocloud.dev/pubsub"
	"gocloud.dev/pubsub/kafkapubsub"

	"github.com/omnibus-go/omnibus/internal/bench"
	"github.com/omnibus-go/omnibus/internal/benchclient"
	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

// What is the same for all on Kafka: topics of four partitions and one replica, groups that begin with the first message, and a commit every 20 ms,
// as omnibus does it: the consume clock stops when the broker has the last one. Raw and franz-go send the headers of omnibus, as long.
//
// sarama subscribes to one partition after the other, and what has come by then waits until a fetch for the first ones returns, half a second by default
// where these are read to their ends. That would be most of what a repetition takes.
const (
	kafkaMaxWait     = 25 * time.Millisecond
	kafkaPartitions  = 4
	kafkaCommitEvery = 20 * time.Millisecond
	kafkaLargest     = 512 << 10 // of a message: the broker takes 1 MiB at most, with all that belongs to it
	kafkaWarmUp      = 20        // repetitions' time
)

// kafkaBroker is the Kafka that OMNIBUS_KAFKA_URL names.
func kafkaBroker(ctx context.Context) (broker, error) {
	url := os.Getenv("OMNIBUS_KAFKA_URL")
	if url == "" {
		return broker{}, errors.New("OMNIBUS_KAFKA_URL names no server; `make bench BROKER=kafka` starts one")
	}
	cfg, err := kafka.ParseURL(url)
	if err != nil {
		return broker{}, err
	}
	version, err := kafkaVersion(ctx, cfg)
	if err != nil {
		return broker{}, err
	}
	shapes := slices.Concat(bench.Shapes(), bench.Failing(), bench.Scaling())
	for i := range shapes {
		shapes[i].Size = min(shapes[i].Size, kafkaLargest)
	}
	servers := cfg.Servers
	return broker{
		version: version,
		shapes:  shapes,
		warm:    func(ctx context.Context, each time.Duration) error { return kafkaWarm(ctx, servers, kafkaWarmUp*each) },
		plugs: []bench.Plug{
			{Impl: bench.Raw, Settings: kafkaRawSettings, Open: func(context.Context) (*bench.Client, error) { return openKafka(servers) }},
			{Impl: "omnibus", Settings: benchclient.Settings, Open: func(ctx context.Context) (*bench.Client, error) { return openKafkaOmnibus(ctx, url, servers) }},
			{Impl: "franz-go", Settings: kafkaFranzSettings, Open: func(context.Context) (*bench.Client, error) { return openKafkaFranz(servers) }},
			{Impl: "watermill", Settings: "watermill-kafka: SyncProducer with acks=1, not idempotent (its default); fetches wait 25 ms, commits 20 ms instead of a second; Router",
				Open: func(context.Context) (*bench.Client, error) { return openKafkaWatermill(servers) }},
			{Impl: "gocloud", Settings: "kafkapubsub (its last release is v0.46.0): MinimalConfig, so acks=1, but fetches wait 25 ms and commits 20 ms instead of a second",
				Open: func(context.Context) (*bench.Client, error) { return openKafkaGocloud(servers) }},
		},
	}, nil
}

// kafkaVersion asks the adapter, which asks the brokers.
func kafkaVersion(ctx context.Context, cfg kafka.Config) (string, error) {
	d, err := cfg.Driver(ctx)
	if err != nil {
		return "", err
	}
	defer func() { _ = d.Close(ctx) }()
	var conf *sarama.Config
	d.As(&conf)
	b := sarama.NewBroker(cfg.Servers[0])
	if err := b.Open(conf); err != nil {
		return "", err
	}
	defer func() { _ = b.Close() }()
	r, err := b.ApiVersions(&sarama.ApiVersionsRequest{Version: 3, ClientSoftwareName: "omnibus", ClientSoftwareVersion: "1"})
	if err != nil {
		return "", err
	}
	for _, f := range r.SupportedFeatures {
		if f.Name == "metadata.version" { // no broker names its release, but the last level of its metadata
			last := map[int16]string{21: "3.9", 25: "4.0", 27: "4.1", 29: "4.2", 30: "4.3"}
			return cmp.Or(last[f.MaxVersion], fmt.Sprintf("with metadata.version %d", f.MaxVersion)), nil
		}
	}
	return "", nil
}

// kafkaWarm lets Java compile what the rows will use: brokers get faster for a while.
func kafkaWarm(ctx context.Context, servers []string, most time.Duration) error {
	m := bench.Message{ID: fmt.Sprintf("%021d", 7), ContentType: "application/octet-stream", Payload: make([]byte, 256)}
	for end := time.Now().Add(most); time.Now().Before(end); {
		if err := kafkaWarmOnce(ctx, servers, m, end); err != nil {
			return err
		}
	}
	return nil
}

func kafkaWarmOnce(ctx context.Context, servers []string, m bench.Message, end time.Time) (err error) {
	c, err := openKafka(servers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close(ctx)) }()
	topic := fmt.Sprintf("bench.warm-%d", time.Now().UnixNano())
	if err := c.Prepare(ctx, topic, []string{"g"}); err != nil {
		return err
	}
	var failed atomic.Pointer[error]
	st, err := c.Stream(ctx, topic, func(_ int, err error) {
		if err != nil {
			failed.CompareAndSwap(nil, &err)
		}
	})
	if err != nil {
		return err
	}
	const most = 200_000
	n := 0
	for ; n < most && time.Now().Before(end); n++ {
		if err := st.Send(m); err != nil {
			return err
		}
	}
	if err := st.Flush(ctx); err != nil {
		return err
	}
	if e := failed.Load(); e != nil {
		return *e
	}
	stop, err := c.Consume(ctx, bench.Consume{Topic: topic, Group: "g", Workers: 1}, func([]byte) {})
	if err != nil {
		return err
	}
	for err == nil {
		var left int64
		if left, err = c.Pending(ctx, topic, "g"); left == 0 {
			break
		}
	}
	return errors.Join(err, stop(ctx))
}

// A kafkaSide is a connection for what is no part of the work: it makes topics, asks the broker where groups stand, and removes both.
type kafkaSide struct {
	sarama.ClusterAdmin
	topics, groups []string
	parts          map[string][]int32
}

func openKafkaSide(servers []string) (*kafkaSide, error) {
	conf := sarama.NewConfig()
	conf.Version = sarama.MaxVersion
	admin, err := sarama.NewClusterAdmin(servers, conf)
	if err != nil {
		return nil, err
	}
	return &kafkaSide{ClusterAdmin: admin, parts: map[string][]int32{}}, nil
}

// prepare makes a topic. Groups need nothing.
func (k *kafkaSide) prepare(ctx context.Context, topic string, groups []string) error {
	if err := k.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: kafkaPartitions, ReplicationFactor: 1}, false); err != nil {
		return err
	}
	k.topics = append(k.topics, topic)
	for _, g := range groups {
		k.groups = append(k.groups, kafkaGroup(topic, g))
	}
	for p := range int32(kafkaPartitions) {
		k.parts[topic] = append(k.parts[topic], p)
	}
	return k.await(ctx, topic)
}

// await returns when the broker leads the partitions of a topic that was just made: before that it knows nothing of them.
func (k *kafkaSide) await(ctx context.Context, topic string) error {
	ask := map[int32]int64{}
	for _, p := range k.parts[topic] {
		ask[p] = sarama.OffsetNewest
	}
	every := time.NewTicker(5 * time.Millisecond)
	defer every.Stop()
	for {
		at, err := k.ListOffsets(map[string]map[int32]int64{topic: ask}, nil)
		for _, r := range at[topic] {
			if err == nil && !errors.Is(r.Err, sarama.ErrNoError) {
				err = r.Err
			}
		}
		if err == nil {
			return nil
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// kafkaGroup is the adapter's name of a group, and everybody's: groups are a cluster's, not a topic's.
func kafkaGroup(topic, group string) string { return topic + "__" + group }

// pending is how far a group's commits are behind the ends of topics.
func (k *kafkaSide) pending(group string, topics ...string) (int64, error) {
	parts, ends := map[string][]int32{}, map[string]map[int32]int64{}
	for _, t := range topics {
		parts[t], ends[t] = k.parts[t], map[int32]int64{}
		for _, p := range k.parts[t] {
			ends[t][p] = sarama.OffsetNewest
		}
	}
	at, err := k.ListConsumerGroupOffsets(group, parts)
	if err != nil {
		return 0, err
	}
	end, err := k.ListOffsets(ends, nil)
	if err != nil {
		return 0, err
	}
	var left int64
	for t, list := range parts {
		for _, p := range list {
			committed, newest := at.GetBlock(t, p), end[t][p]
			switch {
			case committed == nil || newest == nil:
				return 0, fmt.Errorf("the broker does not say where partition %d of %s stands", p, t)
			case !errors.Is(newest.Err, sarama.ErrNoError):
				return 0, newest.Err
			case !errors.Is(committed.Err, sarama.ErrNoError):
				return 0, committed.Err
			}
			left += newest.Offset - max(committed.Offset, 0) // -1 = nothing is committed
		}
	}
	return left, nil
}

// remove removes all and disconnects.
func (k *kafkaSide) remove() error {
	var errs []error
	for _, g := range k.groups {
		if err := k.DeleteConsumerGroup(g); err != nil && !errors.Is(err, sarama.ErrGroupIDNotFound) {
			errs = append(errs, fmt.Errorf("group %s: %w", g, err))
		}
	}
	for _, t := range k.topics {
		if err := k.DeleteTopic(t); err != nil {
			errs = append(errs, fmt.Errorf("topic %s: %w", t, err))
		}
	}
	return errors.Join(append(errs, k.Close())...)
}

func openKafkaOmnibus(ctx context.Context, url string, servers []string) (*bench.Client, error) {
	b, err := kafka.Open(ctx, url, nil)
	if err != nil {
		return nil, err
	}
	side, err := openKafkaSide(servers)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	c := benchclient.New(b)
	prepare, consume := c.Prepare, c.Consume
	c.Prepare = func(ctx context.Context, topic string, groups []string) error {
		if err := b.Ensure(ctx, pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: topic, Partitions: kafkaPartitions}}}); err != nil {
			return err
		}
		if err := prepare(ctx, topic, groups); err != nil {
			return err
		}
		for _, g := range groups {
			side.groups = append(side.groups, kafkaGroup(topic, g))
		}
		all, err := side.ListTopics()
		if err != nil {
			return err
		}
		for name, detail := range all {
			if name == topic || strings.Contains(name, "."+topic+"__") {
				side.topics = append(side.topics, name)
				for p := range detail.NumPartitions {
					side.parts[name] = append(side.parts[name], p)
				}
				if err := side.await(ctx, name); err != nil {
					return err
				}
			}
		}
		return nil
	}
	retries := false
	c.Consume = func(ctx context.Context, s bench.Consume, handle func([]byte)) (func(context.Context) error, error) {
		retries = s.Shape.Retries
		return consume(ctx, s, handle)
	}
	c.Pending = func(_ context.Context, topic, group string) (int64, error) {
		topics := []string{topic}
		if retries { // what failed lies there
			topics = append(topics, "omnibus.retry."+kafkaGroup(topic, group), "omnibus.tiers."+kafkaGroup(topic, group))
		}
		return side.pending(kafkaGroup(topic, group), topics...)
	}
	c.Close = func(context.Context) error { return errors.Join(b.Close(), side.remove()) }
	return c, nil
}

// kafkaPeer is what a peer's own configuration of sarama needs for the comparison.
func kafkaPeer(c *sarama.Config) *sarama.Config {
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Interval = kafkaCommitEvery
	c.Consumer.MaxWaitTime = kafkaMaxWait
	return c
}

// kafkaReads returns when a group of sarama's fetches from all its partitions: it collects those for 100 ms before the first fetch, and may do so twice.
// Where the topic is filled before, the clock begins with the first message anyway.
func kafkaReads(ctx context.Context, c *sarama.Config, sh bench.Shape) error {
	const fetches = 4
	if sh.Op != bench.Latency && sh.Op != bench.RoundTrip {
		return nil
	}
	every := time.NewTicker(2 * time.Millisecond)
	defer every.Stop()
	for {
		if m, ok := c.MetricRegistry.Get("consumer-fetch-rate").(interface{ Count() int64 }); ok && m.Count() >= fetches {
			return nil
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// kafkaOnceItReads has a client's Consume return when the group that sub configures reads.
func kafkaOnceItReads(c *bench.Client, sub **sarama.Config) {
	consume := c.Consume
	c.Consume = func(ctx context.Context, s bench.Consume, handle func([]byte)) (func(context.Context) error, error) {
		stop, err := consume(ctx, s, handle)
		if err != nil {
			return nil, err
		}
		if err := kafkaReads(ctx, *sub, s.Shape); err != nil {
			return nil, errors.Join(err, stop(ctx))
		}
		return stop, nil
	}
}

func openKafkaWatermill(servers []string) (*bench.Client, error) {
	side, err := openKafkaSide(servers)
	if err != nil {
		return nil, err
	}
	pub, err := wmkafka.NewPublisher(wmkafka.PublisherConfig{Brokers: servers, Marshaler: kafkaMarshaler{
		keyed: wmkafka.NewWithPartitioningMarshaler(func(_ string, m *message.Message) (string, error) { return m.Metadata.Get("key"), nil }),
	}}, watermill.NopLogger{})
	if err != nil {
		return nil, errors.Join(err, side.Close())
	}
	var conf *sarama.Config
	c := watermillPlug{
		pub:     pub,
		prepare: side.prepare,
		sub: func(_ context.Context, topic, group string) (message.Subscriber, error) {
			conf = kafkaPeer(wmkafka.DefaultSaramaSubscriberConfig())
			return wmkafka.NewSubscriber(wmkafka.SubscriberConfig{
				Brokers: servers, Unmarshaler: wmkafka.DefaultMarshaler{}, ConsumerGroup: kafkaGroup(topic, group),
				OverwriteSaramaConfig: conf,
			}, watermill.NopLogger{})
		},
		close: func() error { return errors.Join(pub.Close(), side.remove()) },
	}.client()
	kafkaOnceItReads(c, &conf)
	c.Fill = bench.Blocking // its batch is one message after the other
	c.Pending = func(_ context.Context, topic, group string) (int64, error) {
		return side.pending(kafkaGroup(topic, group), topic)
	}
	return c, nil
}

// A kafkaMarshaler gives a key to messages that have one.
type kafkaMarshaler struct {
	wmkafka.DefaultMarshaler
	keyed wmkafka.Marshaler
}

func (k kafkaMarshaler) Marshal(topic string, m *message.Message) (*sarama.ProducerMessage, error) {
	if m.Metadata.Get("key") != "" {
		return k.keyed.Marshal(topic, m)
	}
	return k.DefaultMarshaler.Marshal(topic, m)
}

func openKafkaGocloud(servers []string) (*bench.Client, error) {
	side, err := openKafkaSide(servers)
	if err != nil {
		return nil, err
	}
	var conf *sarama.Config
	c := (&gocloudPlug{
		open: func(ctx context.Context, topic string) (*gocloud.Topic, error) {
			if err := side.prepare(ctx, topic, nil); err != nil {
				return nil, err
			}
			return kafkapubsub.OpenTopic(servers, kafkapubsub.MinimalConfig(), topic, &kafkapubsub.TopicOptions{KeyName: "key"})
		},
		subs: func(_ context.Context, _ *gocloud.Topic, topic, group string) (*gocloud.Subscription, error) {
			group = kafkaGroup(topic, group)
			side.groups = append(side.groups, group)
			conf = kafkaPeer(kafkapubsub.MinimalConfig())
			return kafkapubsub.OpenSubscription(servers, conf, group, []string{topic},
				&kafkapubsub.SubscriptionOptions{KeyName: "key", WaitForJoin: 10 * time.Second})
		},
		late:  true,
		close: side.remove,
	}).client()
	kafkaOnceItReads(c, &conf)
	c.Pending = func(_ context.Context, topic, group string) (int64, error) {
		return side.pending(kafkaGroup(topic, group), topic)
	}
	return c, nil
}
