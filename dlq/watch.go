package dlq

import (
	"context"
	"iter"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	watchEvery  = time.Second
	watchBehind = 256 // dead letters before the last one that are looked at again: clocks of partitions differ
)

// Watch yields the dead letters that come while it runs, and that a filter selects: those that lie there when it begins are not among them. It looks every second,
// and waits for more until ctx ends, which ends it without an error, or until an error does.
func (q *Queue) Watch(ctx context.Context, f Filter) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		w := watcher{q: q, seen: map[item]bool{}}
		old := true
		for {
			for r, err := range w.look(ctx) {
				switch {
				case ctx.Err() != nil:
					return
				case err != nil:
					yield(Record{}, err)
					return
				case old:
					continue
				}
				if q.place.Kind == pubsub.PlaceDead {
					r.State = StateOpen // nobody has had the time to do anything
				}
				if f.match(&r) && !yield(r, nil) {
					return
				}
			}
			old = false
			timer := time.NewTimer(watchEvery)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
		}
	}
}

// A watcher knows which dead letters it has seen.
type watcher struct {
	q      *Queue
	recent []item // the last ones, in the order in which they were shown
	seen   map[item]bool
	n      int // how many were shown, where there are no positions
}

// look yields what it has not seen yet.
func (w *watcher) look(ctx context.Context) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		var from pubsub.Position
		if len(w.recent) > 0 {
			from = w.recent[0].At
		}
		n := 0
		for r, err := range w.q.browse(ctx, from) {
			if err != nil {
				yield(Record{}, err)
				return
			}
			if r.Position == (pubsub.Position{}) {
				if n++; n > w.n {
					w.n = n
					if !yield(r, nil) {
						return
					}
				}
				continue
			}
			it := item{ID: r.ID, At: r.Position}
			if w.seen[it] {
				continue
			}
			w.seen[it] = true
			if w.recent = append(w.recent, it); len(w.recent) > watchBehind {
				delete(w.seen, w.recent[0])
				w.recent = w.recent[1:]
			}
			if !yield(r, nil) {
				return
			}
		}
	}
}
