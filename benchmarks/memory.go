package main

import (
	"context"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	gocloud "gocloud.dev/pubsub"
	"gocloud.dev/pubsub/mempubsub"

	"github.com/omnibus-go/omnibus/internal/bench"
	"github.com/omnibus-go/omnibus/internal/benchclient"
	"github.com/omnibus-go/omnibus/memory"
)

// memoryBroker has no client of its own: raw is its driver without the engine, and the peers have brokers of their own in the process.
func memoryBroker() broker {
	return broker{
		shapes: slices.Concat(bench.Shapes(), bench.Failing(), bench.InProcess(), bench.Scaling()),
		plugs: []bench.Plug{
			{Impl: bench.Raw, Settings: driverSettings, Open: func(context.Context) (*bench.Client, error) {
				return driverClient(memory.NewServer(memory.Config{}).Driver()), nil
			}},
			{Impl: "omnibus", Settings: benchclient.Settings, Open: func(context.Context) (*bench.Client, error) {
				return benchclient.New(memory.New(nil)), nil
			}},
			{Impl: "watermill", Settings: "GoChannel, persistent, OutputChannelBuffer 1000; Router", Open: openGoChannel},
			{Impl: "gocloud", Settings: "mempubsub, ack deadline 1 min, batching at its defaults", Open: openMempubsub},
		},
	}
}

// openGoChannel keeps messages, because GoChannel drops what is published before there is a subscriber.
func openGoChannel(context.Context) (*bench.Client, error) {
	ch := gochannel.NewGoChannel(gochannel.Config{Persistent: true, OutputChannelBuffer: 1000}, watermill.NopLogger{})
	return watermillPlug{
		pub:       ch,
		sub:       func(context.Context, string, string) (message.Subscriber, error) { return ch, nil },
		prepare:   func(context.Context, string, []string) error { return nil },
		close:     ch.Close,
		unordered: "a persistent GoChannel keeps no order",
		unbounded: "the Router starts a goroutine for each message of a GoChannel",
	}.client(), nil
}

func openMempubsub(context.Context) (*bench.Client, error) {
	return (&gocloudPlug{
		open: func(context.Context, string) (*gocloud.Topic, error) { return mempubsub.NewTopic(), nil },
		subs: func(_ context.Context, t *gocloud.Topic, _, _ string) (*gocloud.Subscription, error) {
			return mempubsub.NewSubscription(t, time.Minute), nil
		},
		close: func() error { return nil },
	}).client(), nil
}
