package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	natsjs "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/jetstream"
	"github.com/ThreeDotsLabs/watermill/message"
	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/omnibus-go/omnibus/internal/bench"
	"github.com/omnibus-go/omnibus/internal/benchclient"
	"github.com/omnibus-go/omnibus/nats"
)

// What is the same for all on JetStream: a stream of its own for each client, on file, one replica, flushed to the disk at the server's interval, with a
// window of 2 minutes for duplicates; durable pull consumers with explicit acks, an ack wait of 30 s and no bound of the server on what is
// unacked. Raw sends the headers of omnibus, together as long, so that both put the same bytes on the wire and the server
// works as much for both. Watermill sends no Nats-Msg-Id: the server looks for no duplicates of its messages, which its line says.
const (
	natsDedup   = 2 * time.Minute
	natsAckWait = 30 * time.Second
	natsUnacked = 1_000_000
)

const natsRawSettings = "jetstream: PublishMsgAsync with 1000 pending, PublishMsg where callers wait; Consume with 1000 in the client " +
	"(where the row says defaults its 500), Ack without waiting (the clock stops when the server has them all); 16 and 64 workers: a channel by key or for all"

const natsCoreOnly = "natspubsub speaks core NATS: nothing is confirmed, kept or acked (its last release is v0.46.0)"

// natsBroker is JetStream, on the server that OMNIBUS_NATS_URL names. Watermill takes part twice: as it is by default, and with the acks of raw and
// omnibus, which wait for nothing.
func natsBroker(ctx context.Context) (broker, error) {
	url := os.Getenv("OMNIBUS_NATS_URL")
	if url == "" {
		return broker{}, errors.New("OMNIBUS_NATS_URL names no server; `make bench BROKER=nats` starts one")
	}
	js, err := natsConnect(url)
	if err != nil {
		return broker{}, err
	}
	version := js.Conn().ConnectedServerVersion()
	js.Conn().Close()
	if ctx.Err() != nil {
		return broker{}, context.Cause(ctx)
	}
	return broker{
		variant: "jetstream",
		version: version,
		shapes:  slices.Concat(bench.Shapes(), bench.Failing()),
		plugs: []bench.Plug{
			{Impl: bench.Raw, Settings: natsRawSettings, Open: func(context.Context) (*bench.Client, error) { return openNATS(url) }},
			{Impl: "omnibus", Settings: benchclient.Settings, Open: func(ctx context.Context) (*bench.Client, error) { return openNATSOmnibus(ctx, url) }},
			{Impl: "watermill", Settings: "watermill-nats jetstream: PublishMsg without Nats-Msg-Id, so no deduplication; double acks (its default); Router",
				Open: func(context.Context) (*bench.Client, error) { return openNATSWatermill(url, false) }},
			{Impl: "watermill-async-ack", Settings: "the same with AckAsync", Open: func(context.Context) (*bench.Client, error) { return openNATSWatermill(url, true) }},
			{Impl: "gocloud", Open: func(context.Context) (*bench.Client, error) { return nil, bench.NotOffered(natsCoreOnly) }},
		},
	}, nil
}

// natsConnect connects as raw does.
func natsConnect(url string) (jetstream.JetStream, error) {
	nc, err := client.Connect(url)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(natsWindow))
	if err != nil {
		nc.Close()
		return nil, err
	}
	return js, nil
}

// natsPrepare makes a stream with one subject, which is its name, and its consumers.
func natsPrepare(ctx context.Context, js jetstream.JetStream, name string, groups []string) error {
	_, err := js.CreateStream(ctx, jetstream.StreamConfig{
		Name: name, Subjects: []string{name}, Storage: jetstream.FileStorage, Replicas: 1, Duplicates: natsDedup, AllowDirect: true,
	})
	for _, g := range groups {
		if err != nil {
			break
		}
		_, err = js.CreateConsumer(ctx, name, jetstream.ConsumerConfig{
			Durable: g, FilterSubject: name, AckPolicy: jetstream.AckExplicitPolicy, AckWait: natsAckWait, MaxDeliver: -1, MaxAckPending: natsUnacked,
		})
	}
	return err
}

// natsName is a stream's, which has no dots.
func natsName(topic string) string { return strings.ReplaceAll(topic, ".", "_") }

// natsPending is what a consumer of all of a stream has not settled. The consumer's own count of what is to be delivered lags behind what the stream
// has confirmed, so it is not used.
func natsPending(ctx context.Context, js jetstream.JetStream, stream, consumer string) (int64, error) {
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return 0, err
	}
	c, err := s.Consumer(ctx, consumer)
	if err != nil {
		return 0, err
	}
	info := c.CachedInfo()
	return int64(s.CachedInfo().State.LastSeq-info.Delivered.Stream) + int64(info.NumAckPending), nil
}

// natsNewConsumer is the one consumer of the stream that works for a group and is not among those known. Consumers without acks are omnibus's
// own, a lock among them.
func natsNewConsumer(ctx context.Context, js jetstream.JetStream, stream string, known []string) (string, error) {
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return "", err
	}
	var fresh []string
	list := s.ListConsumers(ctx)
	for c := range list.Info() {
		if c.Config.AckPolicy == jetstream.AckExplicitPolicy && !slices.Contains(known, c.Name) {
			fresh = append(fresh, c.Name)
		}
	}
	switch err := list.Err(); {
	case err != nil:
		return "", err
	case len(fresh) != 1:
		return "", fmt.Errorf("stream %s: %d new consumers, %q, where a group has one", stream, len(fresh), fresh)
	}
	return fresh[0], nil
}

// openNATSOmnibus gives each client streams of its own, as the others have, and removes them when it is closed.
func openNATSOmnibus(ctx context.Context, url string) (*bench.Client, error) {
	stream := "bench-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	b, err := nats.Open(ctx, url+"?stream="+stream, nil)
	if err != nil {
		return nil, err
	}
	js, err := natsConnect(url) // for what is no part of the work
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	c := benchclient.New(b)
	prepare := c.Prepare
	consumers := map[string]string{} // by group
	c.Prepare = func(ctx context.Context, topic string, groups []string) error {
		for _, g := range groups {
			if err := prepare(ctx, topic, []string{g}); err != nil {
				return err
			}
			made, err := natsNewConsumer(ctx, js, stream, slices.Collect(maps.Values(consumers)))
			if err != nil {
				return err
			}
			consumers[g] = made
		}
		return nil
	}
	c.Pending = func(ctx context.Context, _, group string) (int64, error) {
		return natsPending(ctx, js, stream, consumers[group])
	}
	c.Close = func(ctx context.Context) error {
		err := b.Close()
		names := js.StreamNames(ctx)
		var streams []string
		for name := range names.Name() {
			if name == stream || strings.HasPrefix(name, stream+"__") {
				streams = append(streams, name)
			}
		}
		return errors.Join(err, names.Err(), natsRemove(ctx, js, streams))
	}
	return c, nil
}

// openNATSWatermill uses Watermill's adapter for the jetstream package.
func openNATSWatermill(url string, ackAsync bool) (*bench.Client, error) {
	js, err := natsConnect(url)
	if err != nil {
		return nil, err
	}
	pub, err := natsjs.NewPublisher(natsjs.PublisherConfig{
		URL: url, Logger: watermill.NopLogger{},
		ConfigureStream: func(topic string) jetstream.StreamConfig { return jetstream.StreamConfig{Name: natsName(topic)} },
	})
	if err != nil {
		js.Conn().Close()
		return nil, err
	}
	var streams []string
	plug := watermillPlug{
		pub: pub,
		prepare: func(ctx context.Context, topic string, groups []string) error {
			streams = append(streams, natsName(topic))
			return natsPrepare(ctx, js, natsName(topic), groups)
		},
		sub: func(_ context.Context, _, group string) (message.Subscriber, error) {
			return natsjs.NewSubscriber(natsjs.SubscriberConfig{
				URL: url, Logger: watermill.NopLogger{}, AckWaitTimeout: natsAckWait, AckAsync: ackAsync,
				ResourceInitializer: func(ctx context.Context, js jetstream.JetStream, topic string) (jetstream.Consumer, func(context.Context, watermill.LoggerAdapter), error) {
					c, err := js.Consumer(ctx, natsName(topic), group)
					return c, nil, err
				},
			})
		},
		close: func() error { return errors.Join(pub.Close(), natsRemove(context.Background(), js, streams)) },
	}
	c := plug.client()
	c.Pending = func(ctx context.Context, topic, group string) (int64, error) {
		return natsPending(ctx, js, natsName(topic), group)
	}
	return c, nil
}

// natsRemove removes the streams and disconnects.
func natsRemove(ctx context.Context, js jetstream.JetStream, streams []string) error {
	var errs []error
	for _, name := range streams {
		if err := js.DeleteStream(ctx, name); err != nil {
			errs = append(errs, fmt.Errorf("stream %s: %w", name, err))
		}
	}
	js.Conn().Close()
	return errors.Join(errs...)
}
