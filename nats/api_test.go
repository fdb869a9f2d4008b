package nats_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/omnibus-go/omnibus/nats"
)

// A cluster drops a request for a consumer that has no leader yet: whoever waited for the answer waited for ever.
func TestDroppedRequestIsMadeAgain(t *testing.T) {
	noLeader := &jetstream.APIError{Code: 503, ErrorCode: 10008, Description: "JetStream system temporarily unavailable"}
	for name, c := range map[string]struct {
		says  []error // one for each request; nil = nothing; then the answer
		calls int
		err   error
	}{
		"answered":        {nil, 1, nil},
		"dropped":         {[]error{nil, nil}, 3, nil},
		"no leader":       {[]error{noLeader}, 2, nil},
		"not found":       {[]error{jetstream.ErrConsumerNotFound}, 1, jetstream.ErrConsumerNotFound},
		"dropped for all": {make([]error, 1000), 5, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				calls := 0
				n, err := nats.Again(ctx, "consumer c", func(ctx context.Context) (int, error) {
					calls++
					switch {
					case calls > len(c.says):
						return 7, nil
					case c.says[calls-1] != nil:
						return 0, c.says[calls-1]
					}
					<-ctx.Done()
					return 0, ctx.Err()
				})
				if !errors.Is(err, c.err) || (err == nil) != (n == 7) || calls != c.calls {
					t.Errorf("%d after %d requests, error %v; want %d requests and %v", n, calls, err, c.calls, c.err)
				}
				if errors.Is(c.err, context.DeadlineExceeded) && !strings.Contains(err.Error(), "consumer c") {
					t.Errorf("%v does not say what was not answered", err)
				}
			})
		})
	}
}
