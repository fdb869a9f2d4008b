package containers

import (
	"context"
	"fmt"
)

// Up starts a broker that outlives the process, for working by hand, and returns its URL, without a proxy, and what clients need
// besides. Only Down removes it.
func Up(ctx context.Context, kind, variant string) (url string, p Params, err error) {
	k, variant, err := lookup(kind, variant)
	if err != nil {
		return "", Params{}, err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	e, err := newEngine(ctx, k, variant, byHand)
	if err != nil {
		return "", Params{}, err
	}
	b, err := e.start(ctx, variant, false)
	if err != nil {
		return "", Params{}, fmt.Errorf("containers: start %s, variant %s: %w", kind, variant, err)
	}
	return b.url, b.Params, e.Close()
}

// Down removes every broker that Up has started, on this daemon, with its data and files.
func Down(ctx context.Context) error {
	docker, err := dial(ctx)
	if err != nil {
		return fmt.Errorf("containers: no container daemon answers: %w", err)
	}
	defer func() { _ = docker.Close() }()
	if err := removeOwned(ctx, docker, func(owner string) bool { return owner == byHand }); err != nil {
		return fmt.Errorf("containers: %w", err)
	}
	return nil
}

// Image is the official image of a kind in one of its variants ("" is "default").
func Image(kind, variant string) (string, error) {
	k, variant, err := lookup(kind, variant)
	return k.officialImage(variant), err
}
