package middleware

import (
	"hash/maphash"

	"github.com/omnibus-go/omnibus/pubsub"
)

// An lru is a map of at most limit entries that forgets the one used least recently. It allocates only while it grows. Not safe for
// concurrent use.
type lru[K comparable, V any] struct {
	limit          int
	index          map[K]int32
	nodes          []node[K, V]
	newest, oldest int32 // by use; 0 = none: the first node stands for nothing
	free           int32
}

type node[K comparable, V any] struct {
	key          K
	value        V
	newer, older int32
}

func newLRU[K comparable, V any](limit int) *lru[K, V] {
	return &lru[K, V]{limit: limit, index: map[K]int32{}, nodes: make([]node[K, V], 1)}
}

func (l *lru[K, V]) len() int { return len(l.index) }

// get finds an entry, and counts as its use. The pointer is valid until the next put.
func (l *lru[K, V]) get(k K) *V {
	i, ok := l.index[k]
	if !ok {
		return nil
	}
	if i != l.newest {
		l.unlink(i)
		l.link(i)
	}
	return &l.nodes[i].value
}

// put makes an entry with the zero value, in place of one that is there.
func (l *lru[K, V]) put(k K) *V {
	l.remove(k)
	if len(l.index) >= l.limit {
		l.remove(l.nodes[l.oldest].key)
	}
	i := l.free
	if i != 0 {
		l.free = l.nodes[i].older
	} else {
		i = int32(len(l.nodes))
		l.nodes = append(l.nodes, node[K, V]{})
	}
	l.nodes[i] = node[K, V]{key: k}
	l.index[k] = i
	l.link(i)
	return &l.nodes[i].value
}

// peek finds an entry without using it.
func (l *lru[K, V]) peek(k K) (v V, ok bool) {
	if i, found := l.index[k]; found {
		return l.nodes[i].value, true
	}
	return v, false
}

func (l *lru[K, V]) remove(k K) {
	i, ok := l.index[k]
	if !ok {
		return
	}
	delete(l.index, k)
	l.unlink(i)
	l.nodes[i] = node[K, V]{older: l.free}
	l.free = i
}

func (l *lru[K, V]) link(i int32) {
	n := &l.nodes[i]
	n.newer, n.older = 0, l.newest
	if l.newest != 0 {
		l.nodes[l.newest].newer = i
	} else {
		l.oldest = i
	}
	l.newest = i
}

func (l *lru[K, V]) unlink(i int32) {
	n := &l.nodes[i]
	if n.newer != 0 {
		l.nodes[n.newer].older = n.older
	} else {
		l.newest = n.older
	}
	if n.older != 0 {
		l.nodes[n.older].newer = n.newer
	} else {
		l.oldest = n.newer
	}
}

// A digest stands for a message in a table: its size does not depend on what the publisher wrote, and it keeps no text of the message alive.
type digest [2]uint64

// A digester makes digests. 128 bits under seeds that nobody else knows: two messages with one digest cannot be made on purpose.
type digester [2]maphash.Seed

func newDigester() digester { return digester{maphash.MakeSeed(), maphash.MakeSeed()} }

func (s digester) of(topic, group, id string) digest {
	k := [3]string{topic, group, id}
	return digest{maphash.Comparable(s[0], k), maphash.Comparable(s[1], k)}
}

// message is the digest of a delivery: the same for each of its attempts.
func (s digester) message(d *pubsub.Delivery) digest {
	id := d.ID
	if id == "" {
		id = d.Position.String() // of a foreign publisher
	}
	return s.of(d.Topic, d.Group, id)
}
