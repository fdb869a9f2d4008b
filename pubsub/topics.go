package pubsub

import (
	"context"
	"errors"
	"slices"
)

// Topics lists the topics that the broker has, whoever has made them, in the order of their names. What is ours (retries, dead letters), what is the broker's own, and
// what no topic can be named is left out. Where the broker can tell no client what it has it is an ErrUnsupported: RabbitMQ, and NATS without JetStream. On NATS the topics
// are those of the stream; of a stream whose subjects have wildcards, the ones with messages.
func (b *Broker) Topics(ctx context.Context) ([]string, error) {
	if err := b.usable("topics", ""); err != nil {
		return nil, err
	}
	l, ok := b.drv.(Lister)
	if !ok {
		return nil, &Error{Op: "topics", Broker: b.name, Code: ErrUnsupported, Err: errors.New("Topics")}
	}
	all, err := l.Topics(ctx)
	if err != nil {
		return nil, b.fail(ctx, "topics", "", err)
	}
	all = slices.DeleteFunc(all, func(name string) bool { return checkTopic(name) != nil })
	slices.Sort(all)
	return slices.Compact(all), nil
}
