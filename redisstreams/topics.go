package redisstreams

import (
	"context"
	"sync"

	"github.com/redis/go-redis/v9"
)

// Topics implements pubsub.Lister: all streams, whose keys are the names of their topics. Partitions and places of ours have names that no topic has.
func (d *driver) Topics(ctx context.Context) ([]string, error) {
	var mu sync.Mutex // a cluster's nodes are asked at the same time
	var all []string
	err := d.eachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		cursor := uint64(0)
		for {
			page, next, err := d.scan(ctx, c, cursor)
			if err != nil {
				return err
			}
			mu.Lock()
			all = append(all, page...)
			mu.Unlock()
			if cursor = next; cursor == 0 {
				return nil
			}
		}
	})
	return all, err
}

// scanPage is about how many keys the server looks at for one answer.
const scanPage = 1000

func (d *driver) scan(ctx context.Context, c *redis.Client, cursor uint64) (keys []string, next uint64, err error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	err = await(ctx, func() error {
		var err error
		keys, next, err = c.ScanType(ctx, cursor, "", scanPage, "stream").Result()
		return err
	})
	return keys, next, err
}
