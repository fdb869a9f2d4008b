// Package drivers has what the drivers of several adapters do alike.
package drivers

import (
	"context"
	"hash/fnv"
	"iter"
	"time"
)

// PartitionOf is the partition of a key among so many: FNV-1a, the same in every process and every version. Fewer than two are one, 0.
func PartitionOf(key string, parts int) int32 {
	if parts < 2 {
		return 0
	}
	h := fnv.New32a()
	h.Write([]byte(key)) // never fails
	return int32(h.Sum32() % uint32(parts))
}

// WithTimeout gives ctx a deadline after d, where it has none: a request that nobody answers has to end.
func WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}

// Walk makes a sequence of a walk, which hands out what it finds until there is no more, or yield returns false. Its error comes last.
func Walk[T any](walk func(yield func(T) bool) error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		more := true
		err := walk(func(v T) bool {
			more = yield(v, nil)
			return more
		})
		if err != nil && more {
			var none T
			yield(none, err)
		}
	}
}
