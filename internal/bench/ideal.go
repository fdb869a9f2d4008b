package bench

import (
	"context"
	"hash/maphash"
	"sync"
)

// Ideal is a plug without a broker: messages lie in a slice, and workers take them from it. It shows what the machine lets
// handlers do that only wait, and it is what the tests break.
func Ideal() Plug {
	return Plug{Impl: "ideal", Settings: "no broker: workers take messages from a slice", Open: func(context.Context) (*Client, error) {
		b := &shelf{}
		b.more.L = &b.mu
		return &Client{Prepare: b.prepare, Publish: b.publish, PublishBatch: b.publishBatch, Stream: b.stream, Consume: b.consume,
			Pending: b.pending, Close: func(context.Context) error { return nil }}, nil
	}}
}

// A shelf keeps the messages of one topic.
type shelf struct {
	mu       sync.Mutex
	more     sync.Cond
	messages []Message
	groups   map[string]*readers
	seed     maphash.Seed
}

// readers are a group's workers: each reads the whole shelf and takes its keys, or all of them share one place.
type readers struct {
	at      []int
	handled int
	stopped bool
}

func (b *shelf) prepare(_ context.Context, _ string, groups []string) error {
	b.seed, b.groups = maphash.MakeSeed(), map[string]*readers{}
	for _, g := range groups {
		b.groups[g] = &readers{}
	}
	return nil
}

func (b *shelf) publish(_ context.Context, _ string, m Message) error {
	b.put(m)
	return nil
}

func (b *shelf) publishBatch(_ context.Context, _ string, ms []Message) (int, error) {
	b.put(ms...)
	return len(ms), nil
}

func (b *shelf) stream(_ context.Context, _ string, confirmed func(int, error)) (Stream, error) {
	return Stream{
		Send:  func(m Message) error { b.put(m); confirmed(1, nil); return nil },
		Flush: func(context.Context) error { return nil },
	}, nil
}

func (b *shelf) put(ms ...Message) {
	b.mu.Lock()
	b.messages = append(b.messages, ms...)
	b.mu.Unlock()
	b.more.Broadcast()
}

func (b *shelf) consume(_ context.Context, s Consume, handle func([]byte)) (func(context.Context) error, error) {
	var wg sync.WaitGroup
	g := b.groups[s.Group]
	g.at = make([]int, s.Workers)
	for w := range s.Workers {
		at := &g.at[0]
		if s.Keyed {
			at = &g.at[w]
		}
		wg.Go(func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			for !g.stopped {
				if *at == len(b.messages) {
					b.more.Wait()
					continue
				}
				m := b.messages[*at]
				*at++
				if s.Keyed && maphash.String(b.seed, m.Key)%uint64(s.Workers) != uint64(w) {
					continue
				}
				b.mu.Unlock()
				handle(m.Payload)
				b.mu.Lock()
				g.handled++
			}
		})
	}
	return func(context.Context) error {
		b.mu.Lock()
		g.stopped = true
		b.mu.Unlock()
		b.more.Broadcast()
		wg.Wait()
		return nil
	}, nil
}

func (b *shelf) pending(_ context.Context, _, group string) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return int64(len(b.messages) - b.groups[group].handled), nil
}
