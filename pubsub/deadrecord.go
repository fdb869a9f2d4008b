package pubsub

import (
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Headers of a dead letter; payload, key and the original headers are as they came.
const (
	headerAttempts = reservedHeader + "attempts" // of a copy for the quarantine
	headerTopic    = reservedHeader + "topic"    // of what a pattern's group is sent alone, for the quarantine or by a replay: the concrete topic

	headerDead         = reservedHeader + "dlq-"
	headerDeadID       = headerDead + "id"
	headerDeadTopic    = headerDead + "source-topic"
	headerDeadGroup    = headerDead + "source-group"
	headerDeadPosition = headerDead + "source-position"
	headerDeadBroker   = headerDead + "source-broker"
	headerDeadReason   = headerDead + "reason"
	headerDeadCategory = headerDead + "category"
	headerDeadPolicy   = headerDead + "policy"
	headerDeadError    = headerDead + "error"
	headerDeadType     = headerDead + "error-type"
	headerDeadStack    = headerDead + "stack"
	headerDeadAttempts = headerDead + "attempts"
	headerDeadFirst    = headerDead + "first-failed"
	headerDeadLast     = headerDead + "last-failed"
	headerDeadService  = headerDead + "service"
	headerDeadVersion  = headerDead + "version"
	headerDeadHost     = headerDead + "host"
	headerDeadTrace    = headerDead + "trace"
	headerDeadPrint    = headerDead + "fingerprint"
	headerDeadHistory  = headerDead + "history"
	headerDeadPayload  = headerDead + "payload" // atSource, or none

	headerTrace = "traceparent" // of W3C Trace Context
)

// Together with the names, what the engine adds is to stay below Headroom.
const (
	maxDeadError   = 4 << 10
	maxDeadStack   = 8 << 10
	maxDeadHistory = 1 << 10
	maxDeadText    = 256 // of each other text that users choose
	maxDeadShort   = 256 // of an error that has to be short
)

const (
	lastShed = 4            // the last step of shed
	pointing = lastShed + 1 // what is stored has nothing of the message but where it is, see pointAt
)

// deadLetter is the message as it came, with headers that tell what happened.
func (c *Consumer) deadLetter(it *item) Message {
	m := *it.rec.Msg
	m.Delay, m.TTL, m.Priority = 0, 0, 0
	now := time.Now()
	m.Headers = slices.DeleteFunc(slices.Clone(m.Headers), func(h Header) bool {
		return strings.HasPrefix(h.Name, headerDead) // of an earlier life, or forged
	})
	add := func(name, value string) {
		if value != "" {
			m.Headers = append(m.Headers, Header{Name: name, Value: value})
		}
	}
	add(headerDeadID, c.b.ids.id())
	add(headerDeadTopic, it.rec.Topic)
	add(headerDeadGroup, c.sub.Group)
	add(headerDeadPosition, it.rec.Pos.String())
	add(headerDeadBroker, c.b.name)
	add(headerDeadReason, string(it.why.reason))
	add(headerDeadCategory, cutText(it.why.category, maxDeadText))
	add(headerDeadPolicy, cutText(it.why.policy, maxDeadText))
	add(headerDeadAttempts, strconv.Itoa(int(it.failed)))
	first := now
	if it.past != nil {
		first = it.past.first
	}
	add(headerDeadFirst, first.UTC().Format(time.RFC3339Nano))
	add(headerDeadLast, now.UTC().Format(time.RFC3339Nano))
	add(headerDeadHistory, it.past.history(maxDeadHistory))
	add(headerDeadService, cutText(c.b.opts.Service, maxDeadText))
	add(headerDeadVersion, cutText(c.b.version, maxDeadText))
	add(headerDeadHost, cutText(c.b.host, maxDeadText))
	add(headerDeadTrace, traceID(m.Headers.Get(headerTrace)))
	if err := it.why.err; err != nil {
		add(headerDeadError, cutText(errorText(err), maxDeadError))
		add(headerDeadType, cutText(errorType(err), maxDeadText))
		add(headerDeadPrint, Fingerprint(err))
		add(headerDeadStack, cutText(stackOf(err), maxDeadStack))
	}
	return m
}

// shed takes off a dead letter what it tells of the failure, as much as so many steps say: the stack, the history, most of the error, all of the
// error. What came stays, and so does what is needed to find and replay it.
func shed(m *Message, steps uint8) {
	if steps >= 1 {
		m.Headers.Del(headerDeadStack)
	}
	if steps >= 2 {
		m.Headers.Del(headerDeadHistory)
	}
	if steps == 3 {
		if text, ok := m.Headers.Lookup(headerDeadError); ok {
			m.Headers.Set(headerDeadError, cutText(text, maxDeadShort))
		}
	}
	if steps >= lastShed {
		m.Headers.Del(headerDeadError)
	}
}

// atSource is what headerDeadPayload says where payload and headers were too large: they are still with the group, at the source's position.
const atSource = "at-source"

// pointAt leaves nothing of what came but ID, key, type and time.
func pointAt(m *Message) {
	m.Payload, m.ContentType = nil, ""
	m.Headers = append(slices.DeleteFunc(m.Headers, func(h Header) bool { return !strings.HasPrefix(h.Name, headerDead) }),
		Header{Name: headerDeadPayload, Value: atSource})
}

// errorType names the innermost error that is not one of ours.
func errorType(err error) string {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			break
		}
		next := u.Unwrap()
		if next == nil {
			break
		}
		err = next
	}
	return fmt.Sprintf("%T", err)
}

// cutText cuts a text, but not within a character.
func cutText(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for i := limit; i > limit-utf8.UTFMax; i-- {
		if utf8.RuneStart(s[i]) {
			return s[:i]
		}
	}
	return s[:limit] // it is no UTF-8
}

// traceID is the trace of a traceparent header, "version-trace-span-flags"; "" where it is none.
func traceID(traceparent string) string {
	const version, trace = 2, 32
	at := version + len("-")
	if len(traceparent) < at+trace+len("-") || traceparent[version] != '-' || traceparent[at+trace] != '-' {
		return ""
	}
	id := traceparent[at : at+trace]
	if strings.Trim(id, "0123456789abcdef") != "" || strings.Trim(id, "0") == "" {
		return ""
	}
	return id
}

// A killedError is why a message is taken for a process killer.
type killedError struct{}

func (killedError) Error() string { return "its handler was started alone and the process ended" }

// buildVersion is the version of the program, or the revision that it was built from; "" where nobody has noted it.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}
