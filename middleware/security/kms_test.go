package security_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/omnibus-go/omnibus/middleware/security"
)

// A fakeKMS is one over the network, as it were: it counts its calls, and can be switched off.
type fakeKMS struct {
	security.KMS
	name string

	wraps, unwraps atomic.Int64

	mu      sync.Mutex
	down    error
	hang    chan struct{} // answers when it is closed; nil = at once
	unbound bool
	panics  bool
}

var errDown = errors.New("the KMS is down")

func (k *fakeKMS) Provider() string { return k.name }
func (k *fakeKMS) Unbound() bool    { return k.unbound }

func (k *fakeKMS) answer(ctx context.Context) error {
	k.mu.Lock()
	down, hang, panics := k.down, k.hang, k.panics
	k.mu.Unlock()
	if panics {
		panic("at the KMS")
	}
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return down
}

func (k *fakeKMS) set(down error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.down = down
}

func (k *fakeKMS) Wrap(ctx context.Context, kek string, dek, binding []byte) ([]byte, error) {
	k.wraps.Add(1)
	if err := k.answer(ctx); err != nil {
		return nil, err
	}
	return k.KMS.Wrap(ctx, kek, dek, binding)
}

func (k *fakeKMS) Unwrap(ctx context.Context, kek string, wrapped, binding []byte) ([]byte, error) {
	k.unwraps.Add(1)
	if err := k.answer(ctx); err != nil {
		return nil, err
	}
	return k.KMS.Unwrap(ctx, kek, wrapped, binding)
}
