package main

import (
	"context"
	"errors"
	"os"

	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/internal/bench"
	"github.com/omnibus-go/omnibus/internal/benchclient"
	"github.com/omnibus-go/omnibus/redisstreams"
)

// What is the same for all on Redis: a stream with a group, on a server that writes each command to the disk before it answers. Raw writes the fields of omnibus,
// together as long, so that both put the same bytes on the wire and the server works as much for both.
const redisRawSettings = "go-redis: pipelines of 500 XADD, one at a time on a connection, XADD where callers wait; XREADGROUP with COUNT 500 " +
	"(where the row says defaults 256), one XACK for all that it brought; 16 and 64 workers: a channel by key or for all, XACK of what they have done, up to 500 at a time"

const redisWatermillSettings = "watermill-redisstream: XADD for each message, COUNT 1 (it has no other), XACK for each; Router"

const redisNoPeer = "gocloud has no driver for Redis Streams"

// redisBroker is the server that OMNIBUS_REDIS_URL names.
func redisBroker(ctx context.Context) (broker, error) {
	url := os.Getenv("OMNIBUS_REDIS_URL")
	if url == "" {
		return broker{}, errors.New("OMNIBUS_REDIS_URL names no server; `make bench BROKER=redis` starts one")
	}
	c, err := redisConnect(url)
	if err != nil {
		return broker{}, err
	}
	defer func() { _ = c.Close() }()
	info, err := c.Info(ctx, "server").Result()
	if err != nil {
		return broker{}, err
	}
	_, version, _ := strings.Cut(info, "redis_version:")
	version, _, _ = strings.Cut(version, "\r\n")
	shapes := append(bench.Shapes(), bench.Failing()...)
	return broker{
		version: version,
		shapes:  shapes,
		plugs: []bench.Plug{
			{Impl: bench.Raw, Settings: redisRawSettings, Open: func(context.Context) (*bench.Client, error) { return openRedis(url) }},
			{Impl: "omnibus", Settings: benchclient.Settings, Open: func(ctx context.Context) (*bench.Client, error) { return openRedisOmnibus(ctx, url) }},
			{Impl: "watermill", Settings: redisWatermillSettings, Open: func(context.Context) (*bench.Client, error) { return openRedisWatermill(url) }},
			{Impl: "gocloud", Open: func(context.Context) (*bench.Client, error) { return nil, bench.NotOffered(redisNoPeer) }},
		},
	}, nil
}

func redisConnect(url string) (*redis.Client, error) {
	o, err := redis.ParseURL(url)
	if err != nil {
		return nil, err
	}
	o.Protocol = 2 // as omnibus: of 3 entries come as maps
	o.ReadTimeout = time.Minute
	o.PoolSize = 1100 // callers that wait
	return redis.NewClient(o), nil
}

// redisPrepare makes a stream with groups.
func redisPrepare(ctx context.Context, c *redis.Client, topic string, groups []string) error {
	if len(groups) == 0 {
		groups = []string{"nobody"}
	}
	for _, g := range groups {
		if err := c.XGroupCreateMkStream(ctx, topic, g, "$").Err(); err != nil {
			return err
		}
	}
	return nil
}

// redisPending is what a group has not settled.
func redisPending(ctx context.Context, c *redis.Client, topic, group string) (int64, error) {
	all, err := c.XInfoGroups(ctx, topic).Result()
	for _, g := range all {
		if g.Name == group {
			return g.Lag + g.Pending, nil
		}
	}
	return 0, errors.Join(err, errors.New("there is no group "+group))
}

func openRedisOmnibus(ctx context.Context, url string) (*bench.Client, error) {
	b, err := redisstreams.Open(ctx, url, nil)
	if err != nil {
		return nil, err
	}
	c := benchclient.New(b)
	var topics []string
	prepare := c.Prepare
	c.Prepare = func(ctx context.Context, topic string, groups []string) error {
		topics = append(topics, topic)
		return prepare(ctx, topic, groups)
	}
	c.Close = func(ctx context.Context) error {
		var client redis.UniversalClient
		b.As(&client)
		return errors.Join(redisRemove(ctx, client, topics), b.Close())
	}
	return c, nil
}

// redisRemove removes streams with all that belongs to them.
func redisRemove(ctx context.Context, c redis.UniversalClient, topics []string) error {
	for _, topic := range topics {
		keys, err := c.Keys(ctx, "*{"+topic+"}*").Result()
		if err == nil {
			err = c.Unlink(ctx, append(keys, topic)...).Err()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func openRedisWatermill(url string) (*bench.Client, error) {
	c, err := redisConnect(url)
	if err != nil {
		return nil, err
	}
	pub, err := redisstream.NewPublisher(redisstream.PublisherConfig{Client: c}, watermill.NopLogger{})
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	var topics []string
	plug := watermillPlug{
		pub: pub,
		prepare: func(ctx context.Context, topic string, groups []string) error {
			topics = append(topics, topic)
			return redisPrepare(ctx, c, topic, groups)
		},
		sub: func(_ context.Context, _, group string) (message.Subscriber, error) {
			own, err := redisConnect(url) // its Close closes the client
			if err != nil {
				return nil, err
			}
			return redisstream.NewSubscriber(redisstream.SubscriberConfig{Client: own, ConsumerGroup: group, DisableIndefiniteInitialBlock: true}, watermill.NopLogger{})
		},
		close: func() error {
			err := redisRemove(context.Background(), c, topics)
			return errors.Join(err, pub.Close())
		},
	}
	client := plug.client()
	client.Pending = func(ctx context.Context, topic, group string) (int64, error) {
		return redisPending(ctx, c, topic, group)
	}
	return client, nil
}

// redisFields are those of omnibus, together as long: an id, and the time in nanoseconds.
func redisFields(topic string, m bench.Message) *redis.XAddArgs {
	values := make([]any, 0, 10)
	values = append(values, ":id", m.ID, ":at", redisTime, ":mime", m.ContentType)
	if m.Key != "" {
		values = append(values, ":key", m.Key)
	}
	return &redis.XAddArgs{Stream: topic, NoMkStream: true, Values: append(values, "payload", m.Payload)}
}

const redisTime = "1772431241123456789"
