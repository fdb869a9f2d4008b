package security

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A Policy says who may publish and consume what. What it does not name nobody may. It must not be changed while a layer uses it.
type Policy struct {
	Publish map[string][]Grant  `json:"publish"` // by producer
	Consume map[string][]string `json:"consume"` // by service: topics, or patterns of them
}

// A Grant lets a producer publish what has one of these types to one of these topics.
type Grant struct {
	Topics []string `json:"topics"` // or patterns, as a subscription's: "*" is one segment, ">" the rest
	Types  []string `json:"types"`  // the same for Message.Type, whose segments dots divide; ">" is every type
}

// DecodePolicy reads a policy from JSON. Unknown fields and fields that are there twice are refused, and so is what allows nothing: a policy, or a list of patterns.
func DecodePolicy(b []byte) (*Policy, error) {
	p := &Policy{}
	if err := decodeStrict(b, p); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	if len(p.Publish)+len(p.Consume) == 0 {
		return nil, errors.New("policy: it has neither publish nor consume: it allows nothing")
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Policy) check() error {
	patterns := func(whose string, list []string) error {
		if len(list) == 0 {
			return fmt.Errorf("policy: %s is empty: it allows nothing", whose)
		}
		for _, pattern := range list {
			segments := strings.Split(pattern, ".")
			if slices.Contains(segments, "") || slices.Contains(segments[:len(segments)-1], ">") {
				return fmt.Errorf("policy: %s has %q: segments are not empty, and > is the last", whose, pattern)
			}
		}
		return nil
	}
	for _, producer := range slices.Sorted(maps.Keys(p.Publish)) {
		for i, g := range p.Publish[producer] {
			if err := errors.Join(patterns(fmt.Sprintf("publish.%s[%d].topics", producer, i), g.Topics), patterns(fmt.Sprintf("publish.%s[%d].types", producer, i), g.Types)); err != nil {
				return err
			}
		}
	}
	for _, service := range slices.Sorted(maps.Keys(p.Consume)) {
		if err := patterns("consume."+service, p.Consume[service]); err != nil {
			return err
		}
	}
	return nil
}

// MayPublish says whether a producer may publish messages of a type to a topic.
func (p *Policy) MayPublish(producer, topic, kind string) bool {
	return slices.ContainsFunc(p.Publish[producer], func(g Grant) bool {
		return matchesAny(g.Topics, topic) && matchesAny(g.Types, kind)
	})
}

// MayConsume says whether a service may consume a topic.
func (p *Policy) MayConsume(service, topic string) bool { return matchesAny(p.Consume[service], topic) }

func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return pubsub.MatchPattern(p, name) })
}

// Access lets a service publish and consume what policy says, and nothing else. A message is judged by the producer that Sign has verified, and
// given up with ErrDenied as its reason where that one may not publish it. This check at the consumer is the control; the one at the publisher, whose error is pubsub.ErrDenied, tells a service of its mistake before others do.
//
// service is this one's name, as a producer and as a consumer. Where it may not consume a topic that it subscribes to, or where Sign is missing, its subscription
// pauses, and State says why: nothing is handled, and nothing is lost.
func Access(service string, policy *Policy) pubsub.Middleware {
	m := pubsub.Middleware{Name: "access", After: []string{"sign"}, Why: "who has published a message is known when its signature is verified"}
	switch {
	case policy == nil:
		m.Err = errors.New("the policy is nil")
	case service == "":
		m.Err = errors.New("the service has no name")
	default:
		m.Err = policy.check()
	}
	m.Outgoing = func(_ context.Context, topic string, out *pubsub.Message) error {
		if !policy.MayPublish(service, topic, out.Type) {
			return fmt.Errorf("%w: the policy does not let %q publish %q to %q", pubsub.ErrDenied, service, out.Type, topic)
		}
		return nil
	}
	m.Incoming = func(next pubsub.Handler) pubsub.Handler {
		return func(ctx context.Context, d *pubsub.Delivery) error {
			v, ok := From(ctx)
			switch {
			case !ok:
				return pubsub.Pause(configPause, errNoSign)
			case !policy.MayConsume(service, d.Topic):
				return pubsub.Pause(configPause, fmt.Errorf("%w: the policy does not let %q consume %q", ErrDenied, service, d.Topic))
			case !policy.MayPublish(v.Producer, v.Topic, d.Type):
				return pubsub.GiveUp(pubsub.ReasonVerification, ErrDenied)
			}
			return next(ctx, d)
		}
	}
	return m
}
