package containers

import (
	"context"
	"errors"
	"fmt"
)

// Lend starts a broker without proxies, as measuring wants it, and removes it when use returns. What the environment names by URL is
// used as it is. ctx bounds all of it; a start takes at most a minute. A variant that asks for credentials is refused: use is given a URL only.
func Lend(ctx context.Context, kind, variant string, use func(url string) error) error {
	k, variant, err := lookup(kind, variant)
	if err != nil {
		return err
	}
	b, err := lent(ctx, k, variant)
	if err != nil {
		return err
	}
	if b.Params == (Params{}) {
		err = use(b.url)
	} else {
		err = fmt.Errorf("containers: clients of %s, variant %s, need more than a URL", kind, variant)
	}
	return errors.Join(err, b.Close(context.WithoutCancel(ctx)))
}

func lent(ctx context.Context, k kind, variant string) (*Broker, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	return k.open(ctx, variant, false)
}
