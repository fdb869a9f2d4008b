package redisstreams

import (
	"context"
	"sync"
	"time"
)

// A later delivers messages whose time has come, of the topics that its driver has published such messages to, or reads. Whoever is first at it does it.
type later struct {
	kick chan struct{}
	stop context.CancelFunc
	done chan struct{}

	mu   sync.Mutex
	keys map[string][]string // by stream: the keys of laterScript
	at   time.Time           // when to look next
}

// laterPoll is how often is looked for what others have put there, and then not delivered.
const laterPoll = time.Second

// deliverLater has the driver look after a partition, the next time after so long.
func (d *driver) deliverLater(stream, topic string, lane int32, after time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	if d.later == nil {
		ctx, stop := context.WithCancel(context.Background())
		d.later = &later{kick: make(chan struct{}, 1), stop: stop, done: make(chan struct{}), keys: map[string][]string{}, at: time.Now().Add(laterPoll)}
		go d.later.run(ctx, d)
	}
	l, at := d.later, time.Now().Add(after)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.keys[stream] == nil {
		l.keys[stream] = []string{stream, topicKey("later", topic, lane), topicKey("laterdue", topic, lane)}
	}
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
	all := make([][]string, 0, len(l.keys))
	for _, keys := range l.keys {
		all = append(all, keys)
	}
	l.mu.Unlock()
	for _, keys := range all {
		r, err := d.run(ctx, laterScript, keys)
		if err != nil {
			continue // the server is away, and what waits waits there
		}
		if ms := r.number(); ms >= 0 {
			at := time.Now().Add(time.Duration(ms) * time.Millisecond)
			l.mu.Lock()
			if at.Before(l.at) {
				l.at = at
			}
			l.mu.Unlock()
		}
	}
}

// end stops it.
func (l *later) end() {
	l.stop()
	<-l.done
}
