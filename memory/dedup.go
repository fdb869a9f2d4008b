package memory

import (
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// An index finds messages of one place by their tokens. Few places are ever asked, so it reads the logs only when it is.
type index struct {
	seen  map[pubsub.Dedup]sighting // nil until somebody asks
	read  []int64                   // how far it has read each log
	asked time.Time
	swept time.Time
}

type sighting struct {
	at  int64
	pos pubsub.Position
}

// find looks for a token among what came to a place within the window: only is the group that the place belongs to.
func (x *index) find(logs []*partition, only *group, token pubsub.Dedup, now time.Time) (pubsub.Position, bool) {
	if x.seen == nil || now.Sub(x.asked) > dedupWindow { // nothing of what it knows counts any more
		*x = index{seen: map[pubsub.Dedup]sighting{}, read: make([]int64, len(logs)), swept: now}
	}
	x.asked = now
	since := now.Add(-dedupWindow).UnixNano()
	for i, p := range logs {
		for off := max(x.read[i], p.first); off < p.end; off++ {
			if e := p.at(off); e != nil && e.only == only && e.at > since && e.dedup != (pubsub.Dedup{}) {
				x.seen[e.dedup] = sighting{e.at, p.position(off)}
			}
		}
		x.read[i] = p.end
	}
	if now.Sub(x.swept) > dedupWindow {
		for d, s := range x.seen {
			if s.at <= since {
				delete(x.seen, d)
			}
		}
		x.swept = now
	}
	s, ok := x.seen[token]
	return s.pos, ok && s.at > since
}
