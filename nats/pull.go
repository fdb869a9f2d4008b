package nats

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	pullExpires = 30 * time.Second
	pullTurn    = 250 * time.Millisecond // where there are more legs than messages may be held: they take turns
	pollPause   = 400 * time.Millisecond
	heartbeat   = 5 * time.Second
)

// share is how many messages a leg may have asked for, of n. mu is held.
func (s *source) share(ln *leg) (n int) {
	all, mains := s.spec.MaxInFlight, 0
	for _, o := range s.legs {
		if !o.retry {
			mains++
		}
	}
	switch {
	case ln.waits == waitsForPin, ln.elsewhere():
		return 0
	case ln.retry && s.legs[ln.lane].waits != waitsForNothing, ln.polls && time.Since(ln.polled) < pollPause:
		return 0
	case ln.retry && ln.hot:
		return max(1, all/4)
	case ln.retry, ln.exclusive && ln.pin == "":
		return 1
	case ln.waits == waitsForOld && slices.ContainsFunc(ln.buf, isNew) && (!ln.waited() || time.Since(ln.polled) < pollPause):
		return 0 // as long as new ones come, no old one has its turn
	case ln.waits == waitsForOld:
		return max(0, min(ln.old, all))
	}
	return max(1, (all-len(s.legs)+mains)/mains)
}

// elsewhere says whether the lane is another member's, or will be. What is sent to the group alone goes with its lane. mu is held.
func (ln *leg) elsewhere() bool {
	if ln.retry {
		ln = ln.s.legs[ln.lane]
	}
	return ln.exclusive && (!ln.gained || !ln.losing.IsZero())
}

// waited says whether the leases of the predecessor must be over.
func (ln *leg) waited() bool { return time.Since(ln.since) > ln.s.spec.AckWait+100*time.Millisecond }

func isNew(f *flight) bool { return f.info.deliveries == 1 }

// ask sends pull requests for what there is room for. Old messages need none: nothing of their lane goes out before all have come, however
// many its predecessors held, so that they would wait for the room that they take. mu is held.
func (s *source) ask() {
	if s.quiet || s.dead != nil {
		return
	}
	left, leftBytes := s.spec.MaxInFlight-s.unsettled, s.spec.MaxInFlightBytes-s.bytes
	for _, ln := range s.legs {
		left -= ln.asked
		leftBytes -= ln.askedBytes
	}
	for i := range s.legs {
		ln := s.legs[(s.from+i)%len(s.legs)]
		want, room, bytes, old := s.share(ln), left, leftBytes, ln.waits == waitsForOld
		if old {
			room, bytes = want, s.spec.MaxInFlightBytes
		}
		if room <= 0 || want == 0 || ln.asked > want/2 {
			continue
		}
		n := min(want-ln.asked, room)
		budget := s.spec.MaxInFlightBytes / int64(len(s.legs))
		limit := min(bytes, budget*int64(n)/int64(want))
		if ln.tooBig > 0 {
			limit = min(bytes, budget)
		}
		if alone := ln.tooBig > 1 || limit <= 0; alone { // it fits nowhere else, so it may have all of it
			n, limit = 1, 0
			if s.unsettled > 0 && !old || ln.asked > 0 {
				continue
			}
		} else if ln.tooBig > 0 && ln.asked > 0 {
			continue
		}
		if ln.asked == 0 {
			ln.heard = time.Now()
		}
		r := pullRequest{Batch: n, MaxBytes: limit, Expires: pullExpires, Heartbeat: heartbeat}
		if len(s.legs) > s.spec.MaxInFlight {
			r.Expires, r.Heartbeat = pullTurn, 0
		}
		if ln.exclusive && ln.pin == "" {
			r.Expires, r.Heartbeat = pinCheck, 0 // the server pins whoever asks first, also one that has lost the lane since
		}
		if ln.polls {
			r.Expires, r.Heartbeat, r.NoWait = 0, 0, true
		}
		ln.pulls++
		if ln.pull(r, fmt.Sprintf("%d-%d-%d", n, ln.era, ln.pulls)) != nil {
			return // the connection breaks, which ends the session
		}
		ln.asked += n
		ln.askedBytes += limit
		left -= n
		leftBytes -= limit
	}
}

type pullRequest struct {
	Batch     int           `json:"batch"`
	MaxBytes  int64         `json:"max_bytes,omitempty"`
	Expires   time.Duration `json:"expires,omitempty"`
	Heartbeat time.Duration `json:"idle_heartbeat,omitempty"`
	NoWait    bool          `json:"no_wait,omitempty"`
	Group     string        `json:"group,omitempty"`
	Pin       string        `json:"id,omitempty"`
}

func (ln *leg) pull(r pullRequest, reply string) error {
	if ln.exclusive {
		r.Group, r.Pin = pinGroup, ln.pin
	}
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return ln.s.nc.PublishRequest(ln.s.d.api("CONSUMER.MSG.NEXT."+ln.stream+"."+ln.name), ln.inbox+reply, body)
}

// arrive is called for each message, and for what the server says about requests.
func (ln *leg) arrive(m *client.Msg) {
	s := ln.s
	if m.Reply == "" {
		ln.status(m)
		return
	}
	info, ok := parseReply(m.Reply)
	if !ok {
		s.die(says(pubsub.ErrBroker, "a reply subject that cannot be read: %q", m.Reply))
		return
	}
	now := time.Now()
	f := &flight{leg: ln, msg: m, info: info, lease: now.Add(s.spec.AckWait - onItsWay(s.spec.AckWait))}
	s.mu.Lock()
	defer s.mu.Unlock()
	ln.heard, ln.tooBig, ln.hot = now, 0, info.pending > uint64(max(ln.asked-1, 0))
	if ln.asked--; ln.asked <= 0 {
		ln.asked, ln.askedBytes = 0, 0
	}
	ln.askedBytes -= ln.askedBytes / int64(ln.asked+1)
	defer ln.answered()
	if s.dead != nil || ln.elsewhere() || s.quiet && s.spec.From.Kind != pubsub.PlaceQuarantine {
		_ = s.nc.Publish(m.Reply, bodyNak)
		if id := m.Header["Nats-Pin-Id"]; len(id) > 0 && id[0] != ln.pin {
			_ = s.nc.Publish(ln.unpin(), pinnedGroup()) // else nobody gets anything before the pin's time is over
		}
		return
	}
	if ln.retry {
		if wait := dueIn(m.Header, now); wait > 0 {
			_ = s.nc.Publish(m.Reply, nakIn(wait)) // else its lease ends earlier, and it is looked at again
			s.ask()
			return
		}
	}
	if ln.exclusive {
		if id := m.Header["Nats-Pin-Id"]; len(id) > 0 && id[0] != ln.pin {
			ln.pin, ln.waits, ln.since, ln.checked = id[0], waitsForPin, now, now
			s.look()
		}
	}
	if stored, ok := ln.done[info.seq]; ok && stored == info.stored { // before the connection broke, and the server has forgotten
		_ = s.nc.Publish(m.Reply, bodyAck)
		s.ask()
		return
	}
	f.gen = ln.gen
	ln.own++
	s.hold(f)
	if ln.waits == waitsForNothing {
		ln.buf = append(ln.buf, f)
		s.wake()
		return
	}
	at, _ := slices.BinarySearchFunc(ln.buf, f, func(a, b *flight) int { return cmp.Compare(a.info.seq, b.info.seq) })
	ln.buf = slices.Insert(ln.buf, at, f)
	if ln.old--; isNew(f) {
		ln.polled = now
	}
	s.look()
}

// next takes what can be handed out. mu is held.
func (ln *leg) next() *flight {
	if len(ln.buf) == 0 || ln.waits != waitsForNothing {
		return nil
	}
	f := ln.buf[0]
	ln.buf[0] = nil
	ln.buf = ln.buf[1:]
	return f
}

// status reads what the server says instead of a message.
func (ln *leg) status(m *client.Msg) {
	s := ln.s
	s.mu.Lock()
	defer s.mu.Unlock()
	ln.heard = time.Now()
	code, text := m.Header.Get("Status"), m.Header.Get("Description")
	if code == "100" {
		return
	}
	if m.Subject == ln.inbox+lastReply {
		ln.finish()
		return
	}
	batch, era, _ := strings.Cut(strings.TrimPrefix(m.Subject, ln.inbox), "-")
	era, _, _ = strings.Cut(era, "-")
	left, err := strconv.Atoi(batch)
	switch {
	case era != strconv.Itoa(ln.era) && code != "503": // a request of the time before the lane went and came
		return
	case err != nil && code != "423" && code != "503": // the pin was shown: it holds
		return
	}
	if n, err := strconv.Atoi(m.Header.Get("Nats-Pending-Messages")); err == nil {
		left = n
	}
	if ln.asked -= left; ln.asked <= 0 {
		ln.asked, ln.askedBytes = 0, 0
	}
	s.from++ // the next leg's turn
	ln.answered()
	switch {
	case code == "423" && s.quiet: // we have given the pin up; what runs can still be settled
	case code == "423":
		ln.pin = "" // another's
		ln.lose(false)
	case code == "503":
		ln.fail(errNoConsumer)
	case code == "404", code == "408" && ln.polls:
		ln.polled = ln.heard
	case code == "409" && strings.Contains(text, "MaxBytes"):
		ln.tooBig = min(ln.tooBig+1, 2)
	case code == "409" && (strings.Contains(text, "Deleted") || strings.Contains(text, "push based")):
		ln.fail(jetstream.ErrConsumerDeleted)
	case code == "409" && strings.Contains(text, "Shutdown"):
		ln.fail(errDown)
	case code == "409" && strings.Contains(text, "Leadership"):
		ln.asked, ln.askedBytes = 0, 0
	case code == "400":
		ln.fail(says(pubsub.ErrBroker, "a pull request was refused: %s", text))
	}
	s.ask()
}
