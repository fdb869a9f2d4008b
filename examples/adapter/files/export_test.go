package files

import (
	"slices"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Crash forgets all that is not in the files, and answers nobody until Restart: what a broker's process does that is killed.
func (b *Bus) Crash() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = true
	for _, q := range b.queues {
		for _, s := range slices.Clone(q.members) {
			s.die(codeError(pubsub.ErrUnavailable))
		}
	}
	clear(b.queues)
}

// Restart ends a Crash.
func (b *Bus) Restart() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = false
}
