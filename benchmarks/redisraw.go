package main

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/internal/bench"
)

const (
	redisRun      = 500
	redisDefaults = 1024 // what omnibus holds for 64 workers by default
)

// rawRedis is go-redis, used as an expert would.
type rawRedis struct {
	c      *redis.Client
	topics []string
}

func openRedis(url string) (*bench.Client, error) {
	c, err := redisConnect(url)
	if err != nil {
		return nil, err
	}
	r := &rawRedis{c: c}
	return &bench.Client{
		Prepare: func(ctx context.Context, topic string, groups []string) error {
			r.topics = append(r.topics, topic)
			return redisPrepare(ctx, c, topic, groups)
		},
		Publish: func(ctx context.Context, topic string, m bench.Message) error {
			return c.XAdd(ctx, redisFields(topic, m)).Err()
		},
		PublishBatch: func(ctx context.Context, topic string, ms []bench.Message) (int, error) {
			pipe := c.Pipeline()
			for _, m := range ms {
				pipe.XAdd(ctx, redisFields(topic, m))
			}
			return redisExec(ctx, pipe)
		},
		Stream: func(ctx context.Context, topic string, confirmed func(int, error)) (bench.Stream, error) {
			pipe := c.Pipeline()
			flush := func(ctx context.Context) error {
				n := pipe.Len()
				done, err := redisExec(ctx, pipe)
				confirmed(done, nil)
				if done < n {
					confirmed(n-done, err)
				}
				return err
			}
			return bench.Stream{
				Send: func(m bench.Message) error {
					pipe.XAdd(ctx, redisFields(topic, m))
					if pipe.Len() < redisRun {
						return nil
					}
					return flush(ctx)
				},
				Flush: flush,
			}, nil
		},
		Consume: r.consume,
		Pending: func(ctx context.Context, topic, group string) (int64, error) {
			return redisPending(ctx, c, topic, group)
		},
		Close: func(ctx context.Context) error {
			return errors.Join(redisRemove(ctx, c, r.topics), c.Close())
		},
	}, nil
}

// redisExec sends a pipeline, and counts what was stored.
func redisExec(ctx context.Context, pipe redis.Pipeliner) (stored int, err error) {
	if pipe.Len() == 0 {
		return 0, nil
	}
	cmds, err := pipe.Exec(ctx)
	for _, cmd := range cmds {
		if cmd.Err() == nil {
			stored++
		}
	}
	return stored, err
}

// consume handles in the goroutine that reads where one worker is enough, else in the workers.
func (r *rawRedis) consume(ctx context.Context, s bench.Consume, handle func([]byte)) (func(context.Context) error, error) {
	life, stop := context.WithCancel(ctx)
	var failure atomic.Pointer[error]
	fail := func(err error) {
		if err != nil {
			failure.CompareAndSwap(nil, &err)
		}
	}
	work := func(m *redis.XMessage) { handle([]byte(m.Values["payload"].(string))) }
	count := int64(redisRun)
	if s.Defaults {
		count = redisDefaults
	}
	done := make(chan string, 4*redisRun)
	var workers, acker, reader sync.WaitGroup
	var feeds []chan *redis.XMessage
	if s.Workers > 1 {
		n := 1
		if s.Keyed {
			n = s.Workers
		}
		for range n {
			feeds = append(feeds, make(chan *redis.XMessage, redisRun))
		}
		for w := range s.Workers {
			workers.Go(func() {
				for m := range feeds[w%n] {
					work(m)
					done <- m.ID
				}
			})
		}
		acker.Go(func() {
			for id := range done {
				ids := append(make([]string, 0, redisRun), id)
				for more := true; more && len(ids) < redisRun; {
					select {
					case id, ok := <-done:
						if more = ok; ok {
							ids = append(ids, id)
						}
					default:
						more = false
					}
				}
				fail(r.c.XAck(ctx, s.Topic, s.Group, ids...).Err())
			}
		})
	}
	seed := maphash.MakeSeed()
	reader.Go(func() {
		for life.Err() == nil {
			got, err := r.c.XReadGroup(ctx, &redis.XReadGroupArgs{Group: s.Group, Consumer: "raw", Streams: []string{s.Topic, ">"}, Count: count, Block: 100 * time.Millisecond}).Result()
			if err != nil {
				if !errors.Is(err, redis.Nil) {
					fail(err)
				}
				continue
			}
			msgs := got[0].Messages
			if feeds == nil {
				ids := make([]string, len(msgs))
				for i := range msgs {
					work(&msgs[i])
					ids[i] = msgs[i].ID
				}
				fail(r.c.XAck(ctx, s.Topic, s.Group, ids...).Err())
				continue
			}
			for i := range msgs {
				w := uint64(0)
				if s.Keyed {
					w = maphash.String(seed, msgs[i].Values[":key"].(string)) % uint64(len(feeds))
				}
				feeds[w] <- &msgs[i]
			}
		}
	})
	return func(context.Context) error {
		stop()
		reader.Wait()
		for _, f := range feeds {
			close(f)
		}
		workers.Wait()
		close(done)
		acker.Wait()
		if err := failure.Load(); err != nil {
			return *err
		}
		return nil
	}, nil
}
