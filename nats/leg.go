package nats

import (
	"context"
	"time"

	client "github.com/nats-io/nats.go"

	"github.com/omnibus-go/omnibus/pubsub"
)

const pinCheck = time.Second

// A leg is one consumer that a source reads. Its fields below the line are guarded by the source's mu.
//
// Of an exclusive consumer one member at a time asks for messages: the one that answers for the lane. The server pins it with the first
// message and refuses any other, should two believe that they are the one. Who is pinned holds all messages back until those that its
// predecessor had not settled have come, and then has them in order: the server would deliver new ones first, since the others come only when
// their leases end, and those that were handed back in the order in which they were.
type leg struct {
	consumerName
	s         *source
	inbox     string
	sub       *client.Subscription
	drained   chan struct{} // closed when arrive is called no more
	finished  chan struct{} // closed when the server has answered the last request, see withdraw
	retry     bool          // the group's retries, beside the partitions
	exclusive bool
	live      bool // an ephemeral one: it is ours alone
	polls     bool // the quarantine: no request of it waits at the server, see withdraw

	buf        []*flight
	done       map[uint64]uint64 // acked by the session before, by sequence: when they were stored
	own        int               // flights, here and with the engine
	gone       int               // counts those that were
	asked      int               // messages
	askedBytes int64
	era        int       // counts how often the lane went
	pulls      int       // requests so far: each has a reply subject of its own
	tooBig     int       // the next message does not fit into its share of the budget (1), or into all of it (2)
	hot        bool      // there is more than was asked for
	heard      time.Time // from the server
	polled     time.Time // when a poll found nothing, or a new message came instead of an old one
	lastAck    string    // where it went; "" = none since Sync

	gained  bool                 // the engine knows that the lane is ours
	answers *client.Subscription // for it, to the other members
	losing  time.Time            // when it goes to another member; zero = it stays
	gen     uint32
	pin     string
	rival   string // the server named it while we had no pin: another's, or ours whose first message is on its way
	waits   legWait
	since   time.Time // of waits
	old     int       // that have not come, as far as is known
	checked time.Time // when the server was asked last who is pinned
	shown   time.Time // when pin was shown last
}

type legWait uint8

const (
	waitsForNothing legWait = iota
	waitsForPin             // what has come is not looked at before it is known what the predecessor left
	waitsForOld             // those that it left have not all come
)

// listen subscribes to the inbox of the pull requests.
func (ln *leg) listen() error {
	ln.inbox = ln.s.nc.NewRespInbox() + "."
	sub, err := ln.s.nc.Subscribe(ln.inbox+"*", ln.arrive)
	if err != nil {
		return err
	}
	ln.sub = sub
	sub.SetClosedHandler(func(string) { close(ln.drained) })
	return sub.SetPendingLimits(-1, -1) // bounded by what is asked for
}

func (ln *leg) fail(err error) {
	if ln.s.dead == nil {
		ln.s.dead = err
	}
	ln.s.wake()
}

// gain tells the engine that the lane is ours. mu is held.
func (ln *leg) gain() (err error) {
	if ln.gained {
		return nil
	}
	if ln.exclusive {
		if ln.answers, err = ln.s.nc.Subscribe(ln.s.d.names.active(ln.name), func(m *client.Msg) { _ = m.Respond(nil) }); err != nil {
			return err
		}
	}
	ln.gained = true
	ln.gen++
	ln.s.events = append(ln.s.events, pubsub.LaneEvent{Lane: ln.lane, Gen: ln.gen, Kind: pubsub.LaneGained})
	ln.s.wake()
	return nil
}

// lose gives the lane up, with all that is not settled of it; told says that the engine knows. mu is held.
func (ln *leg) lose(told bool) {
	s := ln.s
	s.release(func(f *flight) bool { return f.leg == ln || f.leg.retry && f.leg.lane == ln.lane })
	if ln.gained && !told {
		s.events = append(s.events, pubsub.LaneEvent{Lane: ln.lane, Gen: ln.gen, Kind: pubsub.LaneLost})
		s.wake()
	}
	answers, pin := ln.standBy()
	if answers != nil {
		_ = answers.Unsubscribe() // it fails with the connection only
	}
	if pin != "" {
		_ = s.nc.Publish(ln.unpin(), pinnedGroup()) // else the pin ends after its time
	}
}

// standBy forgets that the lane is ours. mu is held.
func (ln *leg) standBy() (answers *client.Subscription, pin string) {
	answers, pin = ln.answers, ln.pin
	ln.era++
	ln.asked, ln.askedBytes, ln.tooBig = 0, 0, 0 // the server serves none of it any more
	ln.answers, ln.pin, ln.gained, ln.losing, ln.waits = nil, "", false, time.Time{}, waitsForNothing
	return answers, pin
}

// lastReply is the answer to a request that is made after all others: what the server had sent before it is here.
const lastReply = "last"

// withdraw ends the requests and waits for what the server had sent, where that matters: what is sent to an inbox that nobody reads any more
// comes again when its lease ends, and until then an exclusive group would wait for it; in the quarantine it would pass for a message that
// no process survives. Requests of a pinned consumer end with its pin, those of the quarantine are answered at once.
func (ln *leg) withdraw(ctx context.Context) {
	s := ln.s
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s.mu.Lock()
	pin := ln.pin
	if ln.polls {
		ln.answered()
	}
	s.mu.Unlock()
	switch {
	case ln.polls:
	case !ln.exclusive || pin == "":
		return
	default:
		if _, err := s.nc.RequestWithContext(ctx, ln.unpin(), pinnedGroup()); err != nil {
			return // the pin and the leases end after their time
		}
		s.mu.Lock()
		err := ln.pull(pullRequest{Batch: 1, MaxBytes: 1, NoWait: true}, lastReply)
		ln.pin = ""
		s.mu.Unlock()
		if err != nil {
			return // the connection breaks
		}
	}
	select {
	case <-ln.finished:
	case <-ctx.Done():
	}
}

// answered finishes a leg that asks no more and whose polls have all been answered. mu is held.
func (ln *leg) answered() {
	if ln.polls && ln.asked == 0 && (ln.s.quiet || ln.s.dead != nil) {
		ln.finish()
	}
}

// finish is told of the answer. mu is held.
func (ln *leg) finish() {
	select {
	case <-ln.finished:
	default:
		close(ln.finished)
	}
}

func (ln *leg) unpin() string { return ln.s.d.api("CONSUMER.UNPIN." + ln.stream + "." + ln.name) }

func pinnedGroup() []byte { return []byte(`{"group":"` + pinGroup + `"}`) }

// look asks the other members who has the lane, and the server who is pinned, and what is not settled.
func (ln *leg) look(ctx context.Context) error {
	s := ln.s
	s.mu.Lock()
	ln.checked = time.Now()
	enough := s.lanes() >= s.fair(ln.checked)
	stands, pin, own, gone := ln.gained, ln.pin, ln.own, ln.gone
	s.mu.Unlock()
	if !stands {
		if enough {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, pinCheck/2)
		_, err := s.nc.RequestWithContext(ctx, s.d.names.active(ln.name), nil)
		cancel()
		if err == nil {
			return nil
		}
	}
	c, err := s.js.Consumer(ctx, ln.stream, ln.name)
	if err != nil {
		return err
	}
	info := c.CachedInfo()
	pinned := ""
	for _, g := range info.PriorityGroups {
		pinned = g.PinnedClientID // there is one group
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.dead != nil || s.quiet:
		return nil
	case pin != ln.pin: // what the server says is older than what has come meanwhile
		s.look()
		return nil
	case pinned != "" && ln.gained && ln.pin == "" && ln.asked > 0 && ln.rival != pinned:
		ln.rival = pinned
		return nil
	case pinned != "" && pinned != ln.pin:
		ln.pin = "" // another's, which must stay
		ln.lose(false)
		return nil
	case pinned == "" && ln.pin != "":
		ln.pin = "" // its time is over: the next message brings another
	}
	if err := ln.gain(); err != nil {
		return err
	}
	for _, f := range ln.buf {
		f.gen = ln.gen
	}
	if ln.waits != waitsForNothing {
		ln.waits, ln.old = waitsForOld, info.NumAckPending-ln.own
		if info.NumAckPending <= own-(ln.gone-gone) { // what has come or gone meanwhile may or may not be counted, and must not pass for an old one
			ln.waits = waitsForNothing
		}
		s.wake()
	}
	s.ask()
	return nil
}

// leave ends what the server and the other members know of us, so that the next one need not wait.
func (ln *leg) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	ln.s.mu.Lock()
	answers, pin := ln.standBy()
	ln.s.mu.Unlock()
	if answers != nil {
		_ = answers.Unsubscribe() // it fails with the connection only
	}
	switch {
	case !ln.s.nc.IsConnected():
	case ln.live:
		_ = ln.s.js.DeleteConsumer(ctx, ln.stream, ln.name) // else it ends after a minute
	case pin != "":
		_, _ = ln.s.nc.RequestWithContext(ctx, ln.unpin(), pinnedGroup()) // else the pin ends after its time
	}
}
