package config

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Reloaded is what a Reload has found and done. Both lists are paths of keys, sorted.
type Reloaded struct {
	Applied []string // differed, and are in effect now
	Restart []string // differ and need a restart; where there is one, nothing was applied
}

// Reload reads the file again, as Load does, and the environment and files that it refers to. Where all that differs can take effect while messages
// flow (log.level, paused of a subscription that Serve runs, per_second and burst of a rate-limit layer), it does; no message is lost, handed back or handled twice for it.
// Where anything else differs nothing takes effect, and Reloaded.Restart has the keys. A file that is wrong is an error, and changes nothing. A key that
// log or rate-limit is added to, or taken from, needs a restart, and so does a changed access policy. Keyrings are looked at without Reload.
//
// A handler that runs while its subscription is paused goes on. A message that waits for its turn at a rate keeps that turn.
func (s *Service) Reload() (Reloaded, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next, err := Load(s.path, &s.opts)
	if err != nil {
		return Reloaded{}, err
	}
	var r Reloaded
	for _, path := range differences(s.config, next) {
		if s.canChange(path) {
			r.Applied = append(r.Applied, path)
		} else {
			r.Restart = append(r.Restart, path)
		}
	}
	if len(r.Restart) > 0 {
		r.Applied = nil
		return r, nil
	}
	if s.level != nil {
		s.level.Set(level(next.file.Log.Level))
	}
	for path, rate := range s.rates {
		if slices.ContainsFunc(r.Applied, func(p string) bool { return p == path+".per_second" || p == path+".burst" }) {
			rate.set(next.rateLimit(path))
		}
	}
	for name, gate := range s.paused {
		s.pause(name, gate, next.file.Subscriptions[name].Paused)
	}
	next.plan = s.config.plan // what runs
	s.config = next
	return r, nil
}

func (s *Service) pause(name string, gate *atomic.Bool, paused bool) {
	if gate.Swap(paused) == paused {
		return
	}
	c := s.consumers[name]
	switch {
	case c == nil: // not served yet: Serve looks at the gate
	case paused:
		c.Pause()
	default:
		c.Resume()
	}
}

// canChange says whether a key that differs can take effect now.
func (s *Service) canChange(path string) bool {
	if path == "log.level" {
		return s.level != nil
	}
	dot := max(strings.LastIndex(path, "."), 0)
	switch of := path[:dot]; strings.TrimPrefix(path[dot:], ".") {
	case "per_second", "burst":
		return s.rates[of] != nil
	case "paused":
		name := strings.TrimPrefix(of, "subscriptions.")
		return s.paused[name] != nil && !s.given[name]
	}
	return false
}

const pauseAgain = time.Second // what a message says that comes between Subscribe and Pause; Resume ends it

var errPaused = errors.New("the subscription is paused by its configuration")

// gated keeps a handler from messages while its subscription is paused: one that comes between Subscribe and Pause is handed back.
func gated(paused *atomic.Bool, h pubsub.Handler) pubsub.Handler {
	return func(ctx context.Context, d *pubsub.Delivery) error {
		if paused.Load() {
			return pubsub.Pause(pauseAgain, errPaused)
		}
		return h(ctx, d)
	}
}
