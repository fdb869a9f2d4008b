package middleware

import (
	"context"
	"sync"
	"time"
)

const defaultDedupSize = 100_000

// NewDedupStore makes a store in memory for the last size messages that were handled; 0 or less = 100,000. An entry takes about 100 bytes, whatever
// the message; beyond size the one that was handled longest ago is forgotten, its window over or not.
func NewDedupStore(size int) DedupStore {
	if size <= 0 {
		size = defaultDedupSize
	}
	return &memoryStore{digests: newDigester(), done: newLRU[digest, time.Time](size), running: map[digest]running{}}
}

type memoryStore struct {
	digests digester

	mu      sync.Mutex
	done    *lru[digest, time.Time] // until when it is remembered
	running map[digest]running      // as many as there are handlers
}

type running struct {
	claim uint64
	until time.Time
}

func (s *memoryStore) Begin(_ context.Context, key DedupKey, claim uint64, lease time.Duration) (DedupState, error) {
	k, now := s.digests.of(key.Topic, key.Group, key.ID), time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if until, ok := s.done.peek(k); ok { // not get: what is seen again was not handled later
		if now.Before(until) {
			return DedupDone, nil
		}
		s.done.remove(k)
	}
	if r, ok := s.running[k]; ok && now.Before(r.until) {
		return DedupRunning, nil
	}
	s.running[k] = running{claim, now.Add(lease)}
	return DedupNew, nil
}

func (s *memoryStore) Done(_ context.Context, key DedupKey, window time.Duration) error {
	k, now := s.digests.of(key.Topic, key.Group, key.ID), time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, k)
	*s.done.put(k) = now.Add(window)
	return nil
}

func (s *memoryStore) Abort(_ context.Context, key DedupKey, claim uint64) error {
	k := s.digests.of(key.Topic, key.Group, key.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[k].claim == claim {
		delete(s.running, k)
	}
	return nil
}
