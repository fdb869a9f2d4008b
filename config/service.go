package config

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Handlers are the program's, by the names of the subscriptions.
type Handlers map[string]pubsub.Handler

// A Service is an open broker with what a file says about it. All methods may be called concurrently.
type Service struct {
	broker *pubsub.Broker
	opts   Options
	path   string

	mu        sync.Mutex
	config    *Config // as it is in effect
	served    bool
	consumers map[string]*pubsub.Consumer
	paused    map[string]*atomic.Bool
	given     map[string]bool // by Subscription: the program runs them, and paused does not reach them
	level     *slog.LevelVar
	rates     map[string]*rate
	named     map[string]pubsub.Publisher
}

// Open reads the file, connects to its broker with what is in mux, and ensures its topics and the groups of its subscriptions, so that what is published
// from then on is not missed. ctx bounds the opening only. Nothing is left open where it returns an error.
func Open(ctx context.Context, path string, mux pubsub.Mux, opts *Options) (*Service, error) {
	c, err := Load(path, opts)
	if err != nil {
		return nil, err
	}
	return c.Open(ctx, mux)
}

// Open connects, see the function Open.
func (c *Config) Open(ctx context.Context, mux pubsub.Mux) (*Service, error) {
	if c.opts.Unbound {
		return nil, &Error{File: c.name, Problem: "it was loaded with Options.Unbound", Remedy: "load it with the program's own layers, failures and stores"}
	}
	s := &Service{
		opts: c.opts, path: c.name, config: c, consumers: map[string]*pubsub.Consumer{}, paused: map[string]*atomic.Bool{},
		given: map[string]bool{},
		level: c.plan.level, rates: c.plan.rates, named: map[string]pubsub.Publisher{},
	}
	b, err := mux.Open(ctx, c.file.Broker, &c.plan.options)
	if err != nil {
		return nil, c.at("broker", err)
	}
	s.broker = b
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return s, nil
}

// prepare makes what the file names.
func (s *Service) prepare(ctx context.Context) error {
	c := s.config
	if topics := c.plan.topics; len(topics) > 0 {
		if err := s.broker.Ensure(ctx, pubsub.Topology{Topics: topics}); err != nil {
			return c.at("topics", err)
		}
	}
	for _, name := range c.Subscriptions() {
		sub := c.plan.subscriptions[name]
		s.paused[name] = &atomic.Bool{}
		s.paused[name].Store(c.file.Subscriptions[name].Paused)
		if sub.Group == pubsub.Broadcast {
			continue
		}
		if err := s.broker.Ensure(ctx, pubsub.Topology{Groups: []pubsub.Subscription{sub}}); err != nil {
			return c.at("subscriptions."+name, err)
		}
	}
	for name, opts := range c.plan.publishers {
		p, err := s.broker.Publisher(opts)
		if err != nil {
			return c.at("publishers."+name, err)
		}
		s.named[name] = p
	}
	return nil
}

// Broker is the open broker. What it publishes passes the file's middleware.
func (s *Service) Broker() *pubsub.Broker { return s.broker }

// Publisher is the one of that name under publishers; an error where there is none.
func (s *Service) Publisher(name string) (pubsub.Publisher, error) {
	if p := s.named[name]; p != nil {
		return p, nil
	}
	return nil, s.unknown("publishers", "publisher", name, slices.Collect(maps.Keys(s.named)))
}

// Subscription is what the file says under that name, for Receive and SubscribeBatch of the Broker; an error where there is none, and where it is paused:
// only Serve heeds that. A Reload in which paused of one that was given out differs says Restart.
func (s *Service) Subscription(name string) (pubsub.Subscription, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sub, ok := s.config.plan.subscriptions[name]; ok {
		if s.paused[name].Load() {
			path := "subscriptions." + name + ".paused"
			return pubsub.Subscription{}, &Error{
				File: s.path, Line: s.config.origins[path].Line, Path: path, Problem: "the program runs this subscription itself, and only Serve heeds paused",
				Remedy: "remove paused, or give Serve a handler of its name",
			}
		}
		s.given[name] = true
		return sub, nil
	}
	return pubsub.Subscription{}, s.unknown("subscriptions", "subscription", name, s.config.Subscriptions())
}

// Consumer is the running consumer of a subscription, for its State and Lag; nil while Serve does not run it.
func (s *Service) Consumer(name string) *pubsub.Consumer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.consumers[name]
}

// Serve consumes every subscription of the file with the handler of its name until ctx ends or a subscription fails for good; then it drains them, flushes,
// and closes the Service. It returns nil after a clean end, also where ctx ends before all are subscribed. A subscription without a handler, and a handler without a subscription, are an error, and
// nothing is consumed. Call it once.
func (s *Service) Serve(ctx context.Context, handlers Handlers) error {
	running, stop := context.WithCancel(ctx)
	defer stop()
	err := s.subscribe(running, handlers)
	if errors.Is(err, errServed) {
		return err
	}
	switch {
	case err != nil && ctx.Err() != nil && errors.Is(err, pubsub.ErrCanceled):
		return s.Close()
	case err != nil:
		stop()
		return errors.Join(err, s.Close())
	}
	return errors.Join(s.broker.Run(running), s.Close())
}

var errServed = errors.New("config: Serve was called before")

func (s *Service) subscribe(ctx context.Context, handlers Handlers) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.served {
		return errServed
	}
	s.served = true
	names := s.config.Subscriptions()
	if err := s.match(names, handlers); err != nil {
		return err
	}
	for _, name := range names {
		gate := s.paused[name]
		c, err := s.broker.Subscribe(ctx, s.config.plan.subscriptions[name], gated(gate, handlers[name]))
		if err != nil {
			return s.config.at("subscriptions."+name, err)
		}
		if gate.Load() {
			c.Pause()
		}
		s.consumers[name] = c
	}
	return nil
}

// match finds what is missing on either side.
func (s *Service) match(names []string, handlers Handlers) error {
	var all Errors
	for _, name := range names {
		if handlers[name] == nil {
			path := "subscriptions." + name
			all = append(all, &Error{
				File: s.config.name, Line: s.config.origins[path].Line, Path: path, Problem: "it has no handler",
				Remedy: fmt.Sprintf("pass one as Handlers{%q: ...}, or remove the subscription", name),
			})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(handlers)) {
		if !slices.Contains(names, name) {
			all = append(all, s.unknown("subscriptions", "subscription", name, names))
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

func (s *Service) unknown(path, what, name string, known []string) *Error {
	return &Error{
		File: s.path, Line: s.config.origins[path].Line, Path: path, Problem: fmt.Sprintf("there is no %s %q that the program asks for", what, name),
		Remedy: remedy(name, known),
	}
}

// Close drains what runs, flushes, and disconnects. Serve does it at its end; a program that only publishes calls it itself. Further calls wait for the
// first and return nil.
func (s *Service) Close() error { return s.broker.Close() }
