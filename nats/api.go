package nats

import (
	"context"
	"errors"
	"fmt"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	tryTime  = 2 * time.Second // for one request; an answer comes in milliseconds
	tryPause = 100 * time.Millisecond
	noLeader = 10008 // the server's code for "JetStream system temporarily unavailable": nobody leads the cluster
)

// An api is the client's JetStream, asked again. In a cluster the leader of a stream or a consumer answers for it, and a request that comes
// while one is elected is dropped without a word: who waits for its answer waits until ctx ends, long after there is a leader. Each of
// these requests may be made twice.
type api struct{ jetstream.JetStream }

// Stream reads the settings of a stream.
func (a api) Stream(ctx context.Context, stream string) (jetstream.Stream, error) {
	return again(ctx, "stream "+stream, func(ctx context.Context) (jetstream.Stream, error) { return a.JetStream.Stream(ctx, stream) })
}

// CreateStream makes a stream, or finds the same.
func (a api) CreateStream(ctx context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	return again(ctx, "stream "+cfg.Name, func(ctx context.Context) (jetstream.Stream, error) { return a.JetStream.CreateStream(ctx, cfg) })
}

// Consumer reads the settings of a consumer.
func (a api) Consumer(ctx context.Context, stream, name string) (jetstream.Consumer, error) {
	return again(ctx, "consumer "+name, func(ctx context.Context) (jetstream.Consumer, error) { return a.JetStream.Consumer(ctx, stream, name) })
}

// CreateConsumer makes a consumer, or finds the same. One without a name that was made unheard ends by itself.
func (a api) CreateConsumer(ctx context.Context, stream string, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	return again(ctx, "consumer "+cfg.Durable+cfg.Name, func(ctx context.Context) (jetstream.Consumer, error) {
		return a.JetStream.CreateConsumer(ctx, stream, cfg)
	})
}

// DeleteConsumer removes a consumer. That it is not there is an error the first time only.
func (a api) DeleteConsumer(ctx context.Context, stream, name string) error {
	first := true
	_, err := again(ctx, "consumer "+name, func(ctx context.Context) (struct{}, error) {
		err := a.JetStream.DeleteConsumer(ctx, stream, name)
		if !first && errors.Is(err, jetstream.ErrConsumerNotFound) {
			err = nil
		}
		first = false
		return struct{}{}, err
	})
	return err
}

// again makes a request until it is answered, or ctx ends.
func again[T any](ctx context.Context, about string, request func(context.Context) (T, error)) (T, error) {
	for {
		try, cancel := context.WithTimeout(ctx, tryTime)
		answer, err := request(try)
		cancel()
		if ctx.Err() != nil && err != nil {
			return answer, fmt.Errorf("no answer for the %s: %w", about, ctx.Err())
		}
		if !unanswered(err) {
			return answer, err
		}
		pause(ctx) // the next try says when ctx has ended
	}
}

// unanswered tells what a broker says that has no leader, or nothing, from an answer.
func unanswered(err error) bool {
	if e, ok := errors.AsType[*jetstream.APIError](err); ok {
		return e.ErrorCode == noLeader
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, client.ErrTimeout)
}

// pause waits before the next try. It returns false when ctx has ended.
func pause(ctx context.Context) bool {
	select {
	case <-time.After(tryPause):
		return true
	case <-ctx.Done():
		return false
	}
}
