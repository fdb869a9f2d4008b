package pubsub

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Topology is what a service needs to exist.
type Topology struct {
	Topics []TopicSpec    // nil = none
	Groups []Subscription // Topic, Group, Start, Order and AckWait count; Broadcast is refused
}

// Manage says who owns topology.
type Manage uint8

const (
	Create Manage = iota // create what is missing
	Verify               // it must be there and agree
	Off                  // do not look
)

// String is "create", "verify" or "off".
func (m Manage) String() string { return enumText(m, "create", "verify", "off") }

// TopicSpec describes a topic. Zero = the default, or what an existing topic has. What an adapter cannot set it refuses as ErrUnsupported; see its
// package for what a retention means there.
type TopicSpec struct {
	Name       string        // segments of A-Z a-z 0-9 _ - joined by dots; required
	Partitions int           // lanes, on every broker that has Partitions; 0 = 1
	Replicas   int           // machines that have a copy; 0 = the adapter's Config, else the broker's
	Retention  time.Duration // how long messages are kept; 0 = the adapter's Config, else the broker's
	MaxBytes   int64         // how much is kept; 0 = the adapter's Config, else the broker's
}

// Check is nil, or an error that says what is wrong whatever the broker: the name, or a negative setting.
func (t TopicSpec) Check() error { return t.check() }

func (t TopicSpec) check() error {
	if err := checkTopic(t.Name); err != nil {
		return err
	}
	if t.Partitions < 0 || t.Replicas < 0 || t.Retention < 0 || t.MaxBytes < 0 {
		return fmt.Errorf("topic %q has a negative setting", t.Name)
	}
	return nil
}

// Ensure creates topics and groups, or checks that existing ones agree (else ErrConflict). A group that exists before the
// first publish misses nothing, on every broker. With Manage Verify it only checks, with Off it does nothing.
func (b *Broker) Ensure(ctx context.Context, t Topology) error {
	if err := b.usable("ensure", ""); err != nil {
		return err
	}
	groups := make([]Subscription, len(t.Groups))
	for _, s := range t.Topics {
		if err := s.check(); err != nil {
			return &Error{Op: "ensure", Broker: b.name, Topic: s.Name, Code: ErrInvalid, Err: err, Hint: namesHint}
		}
		if s.Partitions > 1 && !b.caps.Partitions {
			return &Error{Op: "ensure", Broker: b.name, Topic: s.Name, Code: ErrUnsupported, Err: errors.New("TopicSpec.Partitions above 1")}
		}
	}
	for i, s := range t.Groups {
		if err := b.checkSubscription("ensure", s); err != nil {
			return err
		}
		if s.Group == Broadcast {
			return invalidOn(b, "ensure", s.Topic, errors.New("a Broadcast group lives with its consumer only"), "name a group")
		}
		groups[i] = s.withDefaults()
	}
	if b.opts.Manage == Off {
		return nil
	}
	topic := ""
	if len(t.Topics)+len(t.Groups) == 1 { // then an error is about that one
		for _, s := range t.Topics {
			topic = s.Name
		}
		for _, s := range t.Groups {
			topic = s.Topic
		}
	}
	return b.fail(ctx, "ensure", topic, b.drv.Ensure(ctx, Topology{Topics: t.Topics, Groups: groups}, b.opts.Manage))
}

func invalidOn(b *Broker, op, topic string, err error, hint string) *Error {
	e := invalid(op, topic, err, hint)
	e.Broker = b.name
	return e
}

// checkSubscription refuses what is wrong, and what this broker cannot do.
func (b *Broker) checkSubscription(op string, s Subscription) error {
	if err := s.check(); err != nil {
		hint := ""
		if checkFilter(s.Topic) != nil || s.Group != Broadcast && checkGroup(s.Group) != nil {
			hint = namesHint
		}
		return invalidOn(b, op, s.Topic, err, hint)
	}
	lacking := func(what, hint string) error {
		return &Error{Op: op, Broker: b.name, Topic: s.Topic, Code: ErrUnsupported, Err: errors.New(what), Hint: hint}
	}
	start, _, _ := s.Start.Parts()
	_, browses := b.drv.(Browser)
	switch {
	case s.AfterDeadLetter == BlockKey && !(browses && b.caps.Redelivery):
		return lacking("Subscription.AfterDeadLetter BlockKey", "this broker keeps no dead letters of a group, so nobody knows which keys are blocked")
	case IsPattern(s.Topic) && !b.caps.Patterns:
		return lacking("a pattern in Subscription.Topic", "subscribe to each topic")
	case start != StartNow && (!b.caps.History || s.Group == Broadcast):
		return lacking("Subscription.Start other than FromNow", "nothing is kept for a group that does not exist yet")
	case !b.caps.Redelivery && s.Order != OrderPerMember && s.Order != OrderNone:
		return lacking("Subscription.Order "+s.Order.String(), "without redelivery only OrderPerMember and OrderNone can be kept: name one")
	case !b.caps.Redelivery && s.DeadLetter.Topic == "" && !s.DeadLetter.Drop:
		return lacking("dead letters of the group's own", "name DeadLetter.Topic, or Drop")
	case s.Order.Exclusive() && s.Group != Broadcast && b.caps.Order != OrderInGroup && !b.caps.Exclusive:
		return lacking("Subscription.Order "+s.Order.String(), "this broker has no exclusive groups: choose OrderPerMember or OrderNone")
	}
	if s.Order.ordered() && b.longestHold() != Forever {
		for i, p := range append([]Policy{s.Retry}, rulePolicies(s.Rules)...) {
			if p = p.withDefaults(); p.longest(p.maxRetries()) > b.longestHold() {
				field := "Subscription.Retry"
				if i > 0 {
					field = fmt.Sprintf("Subscription.Rules[%d].Retry", i-1)
				}
				return lacking(fmt.Sprintf("%s with a delay above %v in an ordered subscription", field, b.longestHold()),
					"a message that waits keeps its lease: shorten Policy.Max or Delays, or choose OrderByKeyLoose or OrderNone")
			}
		}
	}
	return nil
}

// longestHold is how long a message can wait in process. Where nothing is redelivered there is no lease that could end.
func (b *Broker) longestHold() time.Duration {
	if !b.caps.Redelivery {
		return Forever
	}
	return b.caps.LeaseMax
}

func rulePolicies(rules []Rule) []Policy {
	ps := make([]Policy, len(rules))
	for i, r := range rules {
		ps[i] = r.Retry
	}
	return ps
}
