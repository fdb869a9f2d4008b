package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/internal/bench"
	"github.com/omnibus-go/omnibus/kafka"
)

// kafkaServers are those of the broker in OMNIBUS_KAFKA_URL.
func kafkaServers(t *testing.T) (url string, servers []string) {
	t.Helper()
	url = serverURL(t, "kafka")
	cfg, err := kafka.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	return url, cfg.Servers
}

// Every row of every implementation works on the server of OMNIBUS_KAFKA_URL, loses nothing and leaves no topic and no group behind; the figures are
// worth nothing.
func TestKafka(t *testing.T) {
	_, servers := kafkaServers(t)
	before := kafkaLeft(t, servers)
	all, failing, scaling := len(bench.Shapes()), len(bench.Failing()), len(bench.Scaling())
	wantRows(t, "kafka", "10ms", map[string]int{"raw": all + scaling, "omnibus": all + failing + scaling, "franz-go": all + scaling, "watermill": all - 1, "gocloud": all - 3, "ideal": 1},
		"kafka 4.", "watermill, no asynchronous publish: ", "gocloud, it knows no keys: 1 rows")
	if after := kafkaLeft(t, servers); !slices.Equal(after, before) {
		t.Errorf("topics and groups are %v, before %v", after, before)
	}
}

// kafkaLeft are the topics and groups that there are, besides Kafka's own.
func kafkaLeft(t *testing.T, servers []string) (all []string) {
	t.Helper()
	side, err := openKafkaSide(servers)
	if err != nil {
		t.Fatal(err)
	}
	defer side.Close()
	topics, err := side.ListTopics()
	if err != nil {
		t.Fatal(err)
	}
	for name := range topics {
		if !strings.HasPrefix(name, "__") {
			all = append(all, "topic "+name)
		}
	}
	groups, err := side.ListConsumerGroups()
	if err != nil {
		t.Fatal(err)
	}
	for name := range groups {
		all = append(all, "group "+name)
	}
	slices.Sort(all)
	return all
}

// Raw and franz-go put the record on the wire that omnibus does: the same names of headers, values as long, the same key and payload.
func TestKafkaRawSendsTheSameBytes(t *testing.T) {
	url, servers := kafkaServers(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m := bench.Message{ID: fmt.Sprintf("%021d", 7), Key: "key-00001", ContentType: "application/octet-stream", Payload: []byte("x")}
	stored := func(impl string, c *bench.Client, err error) *sarama.ConsumerMessage {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(ctx)
		topic := fmt.Sprintf("bench.bytes-%s-%d", impl, time.Now().UnixNano())
		if err := c.Prepare(ctx, topic, []string{"g"}); err != nil {
			t.Fatal(err)
		}
		if err := c.Publish(ctx, topic, m); err != nil {
			t.Fatal(err)
		}
		consumer, err := sarama.NewConsumer(servers, kafkaConfig())
		if err != nil {
			t.Fatal(err)
		}
		defer consumer.Close()
		came := make(chan *sarama.ConsumerMessage, 1)
		for p := range int32(kafkaPartitions) {
			pc, err := consumer.ConsumePartition(topic, p, sarama.OffsetOldest)
			if err != nil {
				t.Fatal(err)
			}
			defer pc.Close()
			go func() {
				if r, ok := <-pc.Messages(); ok {
					came <- r
				}
			}()
		}
		select {
		case r := <-came:
			return r
		case <-ctx.Done():
			t.Fatalf("%s: nothing came: %v", impl, ctx.Err())
			return nil
		}
	}
	shape := func(r *sarama.ConsumerMessage) (names string, bytes int) {
		names = fmt.Sprintf("partition %d, key %q, value %q, headers", r.Partition, r.Key, r.Value)
		for _, h := range r.Headers {
			names += " " + string(h.Key)
			bytes += len(h.Value)
		}
		return names, bytes
	}
	c, err := openKafkaOmnibus(ctx, url, servers)
	names, bytes := shape(stored("omnibus", c, err))
	for impl, open := range map[string]func([]string) (*bench.Client, error){"raw": openKafka, "franz": openKafkaFranz} {
		c, err := open(servers)
		own, n := shape(stored(impl, c, err))
		if own != names || n < bytes || n > bytes+3 { // zeros at the end of a time are not written
			t.Errorf("%s sends %s, %d bytes; omnibus %s, %d bytes", impl, own, n, names, bytes)
		}
	}
}
