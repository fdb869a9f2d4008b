package redisstreams

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// A later delivers messages whose time has come, of the topics that its driver has published such messages to, or reads. Whoever is first at it does it.
type later struct {
	kick chan struct{}
	stop context.CancelFunc
	done chan struct{}

	mu    sync.Mutex
	parts map[string]*waitingPart // by stream
	at    time.Time               // when to look next
}

// A waitingPart is a partition that is looked after, until nobody reads it or has published to it for a while and nothing waits there.
type waitingPart struct {
	keys  []string // of laterScript
	until time.Time
}

const (
	laterPoll = time.Second // how often is looked for what others have put there, and then not delivered
	laterStay = time.Minute // longer than a publisher takes to store a message, and than a source to say again that it reads
)

// deliverLater has the driver look after a partition, the next time after so long. Who reads it says so again and again.
func (d *driver) deliverLater(stream, topic string, lane int32, after time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	if d.later == nil {
		ctx, stop := context.WithCancel(context.Background())
		d.later = &later{kick: make(chan struct{}, 1), stop: stop, done: make(chan struct{}), parts: map[string]*waitingPart{}, at: time.Now().Add(laterPoll)}
		go d.later.run(ctx, d)
	}
	now := time.Now()
	l, at := d.later, now.Add(after)
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.parts[stream]
	if p == nil {
		p = &waitingPart{keys: []string{stream, topicKey("later", topic, lane), topicKey("laterdue", topic, lane)}}
		l.parts[stream] = p
	}
	p.until = now.Add(laterStay)
	if at.Before(l.at) {
		l.at = at
		wake(l.kick)
	}
}

func (l *later) run(ctx context.Context, d *driver) {
	defer close(l.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			l.deliver(ctx, d)
		case <-l.kick:
		case <-ctx.Done():
			return
		}
		l.mu.Lock()
		timer.Reset(max(time.Until(l.at), time.Millisecond))
		l.mu.Unlock()
	}
}

// deliver looks at all partitions once.
func (l *later) deliver(ctx context.Context, d *driver) {
	l.mu.Lock()
	l.at = time.Now().Add(laterPoll)
	all := slices.Collect(maps.Values(l.parts))
	l.mu.Unlock()
	for _, p := range all {
		r, err := d.run(ctx, laterScript, p.keys)
		if err != nil {
			continue // the server is away, and what waits waits there
		}
		ms := r.number()
		now := time.Now()
		l.mu.Lock()
		if ms < 0 && now.After(p.until) {
			delete(l.parts, p.keys[0])
		}
		if at := now.Add(time.Duration(ms) * time.Millisecond); ms >= 0 && at.Before(l.at) {
			l.at = at
		}
		l.mu.Unlock()
	}
}

// end stops it.
func (l *later) end() {
	l.stop()
	<-l.done
}
