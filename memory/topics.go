package memory

import (
	"context"
	"maps"
	"slices"
)

// Topics implements pubsub.Lister.
func (d *driver) Topics(ctx context.Context) ([]string, error) {
	if err := d.enter(ctx); err != nil {
		return nil, err
	}
	defer d.s.mu.Unlock()
	return slices.Collect(maps.Keys(d.s.topics)), nil
}
