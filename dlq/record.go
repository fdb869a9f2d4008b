package dlq

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A Record is one dead letter. What its writer did not say is the zero value.
type Record struct {
	ID       string          // of the dead letter; of one that has none "@" and its position, or "#" and a hash of it
	Message  pubsub.Message  // as it was before it was given up: without the headers that tell of the failure
	Stored   pubsub.Message  // as it lies there
	Position pubsub.Position // where it lies; zero where the broker does not say
	Format   Format          // whose headers it has
	Bad      error           // what of it cannot be read; then that is missing above, and Stored has it

	// AtSource says that Message has no payload and no headers: all of it was too large for this place, and the message is still with its group, at
	// SourcePosition. There is another dead letter, with all of it, once there was room. Each consumer that gets the message before that stores one
	// like this, with an ID of its own: after a restart, for instance, or when another member takes over, unless the broker still knows the one before,
	// see pubsub.Capabilities.Dedup. None of them goes away by itself. Those of one message have the same Topic, Group and SourcePosition, or Message.ID
	// where the broker has no positions.
	AtSource bool

	Topic, Group   string    // where it failed: the concrete topic, and the group
	SourcePosition string    // where it lay there, see pubsub.Position
	Broker         string    // the adapter that it failed on
	Reason         string    // why it was given up: "max-attempts", "permanent", ...
	Category       string    // of the rule that its failure matched
	Policy         string    // the name of the policy by which it was retried until then; "" = it was given up at once
	Error          string    // the text of its last failure
	ErrorType      string    // the type of that error, a class in other languages
	Fingerprint    string    // the same for failures of the same kind, whatever their texts
	Stack          string    // of a panic, or where pubsub.WithStack was called; "" = there is none, or no room for it
	Attempts       int       // handler calls that failed; 0 = unknown
	History        []Attempt // the latest of them, the oldest first: those that its last member knew of
	FirstFailed    time.Time // the first of those
	LastFailed     time.Time // when it was given up
	Service, Host  string    // whose handler it was
	Version        string    // of that program, or the revision that it was built from
	Trace          string    // the trace that the message belongs to, 32 hexadecimal digits
	Replays        int       // how often it has been replayed before
	ReplayOf       string    // the dead letter that it was replayed from
	EditOf         string    // the dead letter that it was made from, see Queue.Edit

	State             State     // what became of it
	StateSince        time.Time // by the clock of who did it; zero = always, or unknown
	StateBy, StateWhy string    // who did it, see Note; of StateResolved the service and host whose handler it was

	undecodable bool // by the adapter: nobody knows what it was
}

// An Attempt is a call of the handler that failed. Its texts are short.
type Attempt struct {
	Number    int       `json:"attempt"` // the first is 1
	At        time.Time `json:"at"`      // when it ended
	ErrorType string    `json:"type"`    // see Record.ErrorType
	Error     string    `json:"error"`   // the beginning of its text
}

// The headers of a replayed message.
const (
	headerReplays  = "omnibus-replays"
	headerReplayOf = "omnibus-replay-of"
)

// The headers that the engine adds to a message that it keeps. A dead letter may have them still; a replay that carried them would expire at once, or
// begin with the attempts of another life.
const (
	headerExpires  = "omnibus-expires"
	headerAttempts = "omnibus-attempts"
	headerRetry    = "omnibus-retry"
	headerTopic    = "omnibus-topic"
)

// headerDead begins the headers of our dead letters.
const headerDead = "omnibus-dlq-"

// read makes a Record of what a browse has shown. It never fails: what it cannot read it says in Bad.
func read(stored pubsub.Record) Record {
	m := *stored.Msg
	r := Record{Stored: m, Message: m, Position: stored.Pos, Bad: stored.Bad, undecodable: stored.Bad != nil}
	if !r.undecodable {
		f := formatOf(m.Headers)
		r.Format = f.name
		if f.read != nil {
			p := parser{h: m.Headers}
			f.read(&r, &p)
			r.Bad = errors.Join(p.errs...)
		}
		r.Message.Headers = slices.DeleteFunc(slices.Clone(m.Headers), func(h pubsub.Header) bool {
			return ownHeader(h.Name) || f.owns != nil && f.owns(h.Name)
		})
		if len(r.Message.Headers) == 0 {
			r.Message.Headers = nil
		}
		p := parser{h: m.Headers}
		r.Replays, r.ReplayOf = p.number(headerReplays), p.text(headerReplayOf)
		r.Bad = errors.Join(append(p.errs, r.Bad)...)
	}
	r.Message.Delay, r.Message.TTL, r.Message.Priority = 0, 0, 0 // they were for the first time
	if r.ID == "" {
		r.ID = anonymous(&r)
	}
	if r.Fingerprint == "" {
		r.Fingerprint = fingerprint(&r)
	}
	return r
}

// ownHeader says whether a header is of a dead letter, of an earlier replay or of the engine. The count of replays is written anew.
func ownHeader(name string) bool {
	switch name {
	case headerReplays, headerReplayOf, headerExpires, headerAttempts, headerRetry, headerTopic:
		return true
	}
	return strings.HasPrefix(name, headerDead)
}

// anonymous is the ID of a dead letter whose writer gave it none.
func anonymous(r *Record) string {
	if r.Position != (pubsub.Position{}) {
		return "@" + r.Position.String()
	}
	return "#" + digest(contents(&r.Stored)...)
}

// contents is what a message has in it.
func contents(m *pubsub.Message) []string {
	parts := []string{m.ID, m.Type, m.Key, m.ContentType, string(m.Payload)}
	for _, h := range m.Headers {
		parts = append(parts, h.Name, h.Value)
	}
	return parts
}

// fingerprint stands in for one that the writer did not make. Its version, 0, says so.
func fingerprint(r *Record) string {
	return "0:" + digest(r.Reason, r.Category, r.ErrorType)
}

// digest is a hash of texts, told apart from each other.
func digest(parts ...string) string {
	sum := hash(parts...)
	return hex.EncodeToString(sum[:8])
}

func hash(parts ...string) [sha256.Size]byte {
	var b []byte
	for _, s := range parts {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return sha256.Sum256(b)
}

// readOwn reads what pubsub writes.
func readOwn(r *Record, p *parser) {
	text := func(name string) string { return p.text(headerDead + name) }
	r.ID = text("id")
	r.Topic, r.Group, r.SourcePosition, r.Broker = text("source-topic"), text("source-group"), text("source-position"), text("source-broker")
	r.Reason, r.Category, r.Error, r.ErrorType = text("reason"), text("category"), text("error"), text("error-type")
	r.Fingerprint, r.Stack, r.Service, r.Host = text("fingerprint"), text("stack"), text("service"), text("host")
	r.Policy, r.Version, r.Trace, r.AtSource = text("policy"), text("version"), text("trace"), text("payload") == "at-source"
	r.EditOf = text("edit-of")
	r.Attempts = p.number(headerDead + "attempts")
	r.History = p.history(headerDead + "history")
	r.FirstFailed = p.time(headerDead+"first-failed", time.RFC3339Nano)
	r.LastFailed = p.time(headerDead+"last-failed", time.RFC3339Nano)
}

// A parser reads headers and keeps what it could not read.
type parser struct {
	h    pubsub.Headers
	errs []error
}

func (p *parser) text(name string) string { return p.h.Get(name) }

func (p *parser) bad(name, value string) {
	p.errs = append(p.errs, fmt.Errorf("header %s is %.40q", name, value))
}

// maxNumber bounds what a header may count, so that one more never overflows.
const maxNumber = 1 << 30

// number reads a count. What is too large is maxNumber and not 0: it must not come out as a message that was never replayed.
func (p *parser) number(name string) int {
	s := p.h.Get(name)
	if s == "" {
		return 0
	}
	n, err := strconv.Atoi(s) // out of range it is the nearest int
	if err != nil && !errors.Is(err, strconv.ErrRange) || n < 0 {
		p.bad(name, s)
		return 0
	}
	return min(n, maxNumber)
}

func (p *parser) history(name string) (list []Attempt) {
	s := p.h.Get(name)
	if s == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(s), &list); err != nil {
		p.bad(name, s)
		return nil
	}
	return list
}

// time reads a time that is written in one of the layouts.
func (p *parser) time(name string, layouts ...string) time.Time {
	s := p.h.Get(name)
	if s == "" {
		return time.Time{}
	}
	text := s
	if i := strings.LastIndexByte(s, ':'); strings.Count(s, ":") == 3 {
		text = s[:i] + "." + s[i+1:] // 10:04:05:123456, as NServiceBus writes it
	}
	for _, layout := range layouts {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC()
		}
	}
	p.bad(name, s)
	return time.Time{}
}

// integer reads a number of four or eight bytes, or digits, into its digits.
func (p *parser) integer(name string) string {
	s := p.h.Get(name)
	_, err := strconv.ParseInt(s, 10, 64)
	switch {
	case s == "" || err == nil:
		return s
	case len(s) == 4:
		return strconv.FormatInt(int64(int32(binary.BigEndian.Uint32([]byte(s)))), 10)
	case len(s) == 8:
		return strconv.FormatInt(int64(binary.BigEndian.Uint64([]byte(s))), 10)
	}
	p.bad(name, s)
	return ""
}

// first is the first of several headers that is there.
func (p *parser) first(names ...string) string {
	for _, name := range names {
		if s := p.h.Get(name); s != "" {
			return s
		}
	}
	return ""
}

// when is the best that is known of the time of a failure.
func (r *Record) when() time.Time {
	return cmp.Or(r.LastFailed, r.FirstFailed, r.Stored.Time)
}
