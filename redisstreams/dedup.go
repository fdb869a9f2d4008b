package redisstreams

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/internal/dedup"
)

// A DedupStore is a [github.com/omnibus-go/omnibus/middleware.DedupStore] that all members of a group share: a key for each message that is being handled
// or was, which the server removes in time. Safe for concurrent use.
type DedupStore struct{ client redis.UniversalClient }

// NewDedupStore makes a store. The client stays the caller's; that of a Broker of this adapter is As(&client).
func NewDedupStore(client redis.UniversalClient) *DedupStore { return &DedupStore{client} }

// A key holds "done", or the claim of whoever handles the message.
const doneMark = "done"

const beginText = `
local have = redis.call('GET', KEYS[1])
if have == '` + doneMark + `' then return 2 end
if have and have ~= ARGV[1] then return 1 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 0`

const abortText = `
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 0`

func handledKey(k dedup.Key) string {
	return topicKey("handled", k.Topic, 0) + "__" + k.Group + ":" + k.ID
}

// Begin implements middleware.DedupStore.
func (s *DedupStore) Begin(ctx context.Context, key dedup.Key, claim uint64, lease time.Duration) (dedup.State, error) {
	n, err := s.client.Eval(ctx, beginText, []string{handledKey(key)}, strconv.FormatUint(claim, 36), max(lease.Milliseconds(), 1)).Int()
	return dedup.State(n), err
}

// Done implements middleware.DedupStore.
func (s *DedupStore) Done(ctx context.Context, key dedup.Key, window time.Duration) error {
	return s.client.Set(ctx, handledKey(key), doneMark, max(window, time.Millisecond)).Err()
}

// Abort implements middleware.DedupStore.
func (s *DedupStore) Abort(ctx context.Context, key dedup.Key, claim uint64) error {
	return s.client.Eval(ctx, abortText, []string{handledKey(key)}, strconv.FormatUint(claim, 36)).Err()
}
