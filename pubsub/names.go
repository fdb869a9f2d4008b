package pubsub

import (
	"fmt"
	"strings"
)

const (
	maxName        = 180 // bytes of topic and group together: Kafka allows 249 for the physical name, ours add to it
	reservedTopic  = "omnibus"
	reservedHeader = "omnibus-"
	headerReplay   = reservedHeader + "replay" // begins those that a replay of dead letters adds: they stay when it fails again
)

const namesHint = "a topic is segments of A-Z a-z 0-9 _ - joined by dots, without \"__\" and not under \"omnibus.\"; a group is one segment"

// checkTopic accepts a concrete topic name.
func checkTopic(topic string) error {
	if topic == "" {
		return fmt.Errorf("no topic")
	}
	return checkSegments("topic", topic, false)
}

// checkFilter accepts what a subscription may name: a topic or a pattern.
func checkFilter(topic string) error {
	if topic == "" {
		return fmt.Errorf("no topic")
	}
	return checkSegments("topic", topic, true)
}

func checkGroup(group string) error {
	switch {
	case group == "":
		return fmt.Errorf("no group")
	case strings.Contains(group, "."):
		return fmt.Errorf("group %q has a dot", group)
	case strings.HasPrefix(group, "_"): // what is theirs at the broker is named TOPIC__GROUP
		return fmt.Errorf("group %q begins with an underscore: on some brokers it could not be told from a group of a topic that ends in one", group)
	case len(group) > maxName:
		return fmt.Errorf("group of %d bytes, at most %d with the topic", len(group), maxName)
	}
	return checkSegments("group", group, false)
}

func checkSegments(what, name string, wild bool) error {
	if len(name) > maxName {
		return fmt.Errorf("%s of %d bytes, at most %d", what, len(name), maxName)
	}
	if strings.Contains(name, "__") {
		return fmt.Errorf("%s %q has a double underscore", what, name)
	}
	rest, more := name, true
	for n := 0; more; n++ {
		var seg string
		seg, rest, more = strings.Cut(rest, ".")
		switch {
		case seg == "":
			return fmt.Errorf("%s %q has an empty segment", what, name)
		case wild && seg == "*", wild && seg == ">" && !more:
			continue
		case n == 0 && seg == reservedTopic:
			return fmt.Errorf("%s %q is reserved", what, name)
		}
		for i := range len(seg) {
			c := seg[i]
			if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-') {
				return fmt.Errorf("%s %q has the character %q", what, name, c)
			}
		}
	}
	return nil
}

// IsPattern says whether a subscription's topic has wildcards.
func IsPattern(topic string) bool { return strings.ContainsAny(topic, "*>") }

// MatchPattern says whether pattern covers topic: "*" is one segment, ">" one or more at the end. The places of ours are covered by none.
func MatchPattern(pattern, topic string) bool {
	if topic == reservedTopic || strings.HasPrefix(topic, reservedTopic+".") {
		return false
	}
	for {
		p, pRest, pMore := strings.Cut(pattern, ".")
		t, tRest, tMore := strings.Cut(topic, ".")
		switch {
		case p == ">":
			return t != ""
		case p != "*" && p != t, pMore != tMore:
			return false
		case !pMore:
			return true
		}
		pattern, topic = pRest, tRest
	}
}
