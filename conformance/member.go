package conformance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// memberVariable holds what a consumer in a process of its own has to know.
const memberVariable = "OMNIBUS_SOAK_MEMBER"

// An errand is what it knows.
type errand struct {
	Address      string
	Topic, Group string
	Order        pubsub.Order
	Drop         bool
	Concurrency  int
	MaxInFlight  int
	AckWait      time.Duration
	Busy         time.Duration
	Seed         uint64
}

func (w errand) subscription() pubsub.Subscription {
	s := pubsub.Subscription{Topic: w.Topic, Group: w.Group, Order: w.Order, Concurrency: w.Concurrency, MaxInFlight: w.MaxInFlight, AckWait: w.AckWait}
	s.DeadLetter.Drop = w.Drop
	return s
}

// A word is a line between the member and the process that has started it. A handler's call has one at its begin and one at its end, and
// goes on when the answer has come: so the history has the order in which things happened, whoever was faster to write.
type word struct {
	Call    int    `json:",omitempty"` // of a handler; 0: the member is there, or has ended, or is told to
	End     bool   `json:",omitempty"` // of the call
	ID, Key string `json:",omitempty"` // of the message
	Payload []byte `json:",omitempty"`
	Opened  int    `json:",omitempty"` // sessions so far
}

// Member is for programs that call Soak with an address in the Harness: it is to be called at the very beginning of main or TestMain. In a
// process that Soak has started it consumes from the broker at the address that dial is given, until it is killed or told to end, and
// never returns. In all others it does nothing.
func Member(dial func(ctx context.Context, address string) (pubsub.Driver, error)) {
	text := os.Getenv(memberVariable)
	if text == "" {
		return
	}
	if err := serve(text, dial, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve is the life of a member.
func serve(text string, dial func(ctx context.Context, address string) (pubsub.Driver, error), in io.Reader, out io.Writer) error {
	var w errand
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d, err := dial(ctx, w.Address)
	if err != nil {
		return err
	}
	c := &caller{link: newLink(d), out: json.NewEncoder(out), waits: map[int]chan struct{}{}}
	b, err := pubsub.New(ctx, shaped(c.link, d), nil)
	if err != nil {
		return err
	}
	dice := newDice(w.Seed, w.Topic)
	handle := func(_ context.Context, d *pubsub.Delivery) error {
		call := c.begin(d.Message)
		time.Sleep(time.Duration(dice.below(int(w.Busy))))
		c.end(call)
		return nil
	}
	for { // a cluster that has just been struck may take longer than Subscribe waits
		if _, err = b.Subscribe(context.Background(), w.subscription(), handle); err == nil {
			break
		}
		if ctx.Err() != nil {
			return errors.Join(err, b.Close())
		}
		time.Sleep(100 * time.Millisecond)
	}
	told := make(chan struct{})
	go c.listen(in, sync.OnceFunc(func() { close(told) }))
	c.say(word{}) // it is there
	<-told
	err = b.Close()
	c.say(word{})
	return err
}

// A caller is the member's end of the conversation.
type caller struct {
	link *link

	mu    sync.Mutex
	out   *json.Encoder
	calls int
	waits map[int]chan struct{}
	over  bool // nobody answers any more
}

func (c *caller) say(w word) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.Opened = c.link.openings()
	_ = c.out.Encode(w) //nolint:errchkjson // fails when the other side has gone: then listen ends
}

func (c *caller) begin(m pubsub.Message) (call int) {
	c.mu.Lock()
	c.calls++
	call = c.calls
	c.mu.Unlock()
	c.ask(word{Call: call, ID: m.ID, Key: m.Key, Payload: m.Payload})
	return call
}

func (c *caller) end(call int) { c.ask(word{Call: call, End: true}) }

// ask says something and waits for the answer.
func (c *caller) ask(w word) {
	answered := make(chan struct{})
	c.mu.Lock()
	if c.over {
		close(answered)
	} else {
		c.waits[w.Call] = answered
	}
	c.mu.Unlock()
	c.say(w)
	<-answered
}

// listen passes answers on until there are no more. It calls end when the member is told to end, or nobody is there to tell it.
func (c *caller) listen(in io.Reader, end func()) {
	defer end()
	dec := json.NewDecoder(in)
	for {
		var w word
		if err := dec.Decode(&w); err != nil {
			break
		}
		if w.Call == 0 {
			end()
			continue
		}
		c.mu.Lock()
		close(c.waits[w.Call])
		delete(c.waits, w.Call)
		c.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	for _, ch := range c.waits {
		close(ch)
	}
}

// A member is a consumer in a process of its own, as the suite sees it.
type member struct {
	e     *env
	l     *ledger
	group string
	name  string
	cmd   *exec.Cmd
	said  bytes.Buffer  // on stderr; to be read after the end
	ready chan struct{} // closed when it is there
	over  chan struct{} // closed when it says nothing more

	mu     sync.Mutex
	in     io.WriteCloser
	runs   map[int]run // by call
	opened int
	there  bool   // it has said a word
	alien  string // what it said last that is no word
}

// A run is a handler's call that has not ended.
type run struct {
	number int // in the history
	id     string
}

// startMember starts this program again, as a consumer, and returns when it consumes.
func startMember(e *env, l *ledger, s pubsub.Subscription) *member {
	e.mu.Lock()
	e.drivers++
	m := &member{e: e, l: l, group: s.Group, name: fmt.Sprintf("process %d", e.drivers), runs: map[int]run{},
		ready: make(chan struct{}), over: make(chan struct{})}
	e.mu.Unlock()
	text, err := json.Marshal(errand{
		Address: e.h.Address, Topic: s.Topic, Group: s.Group, Order: s.Order, Drop: s.DeadLetter.Drop, Concurrency: s.Concurrency,
		MaxInFlight: s.MaxInFlight, AckWait: s.AckWait, Busy: stormBusy, Seed: rand.Uint64(),
	})
	e.must(err, "describe a member")
	self, err := os.Executable()
	e.must(err, "find this program")
	m.cmd = exec.CommandContext(e.Context(), self, "-test.run=^$") // a test that does not call Member runs nothing
	m.cmd.Env = append(os.Environ(), memberVariable+"="+string(text))
	m.cmd.Stderr = &m.said
	m.in, err = m.cmd.StdinPipe()
	e.must(err, "start a member")
	out, err := m.cmd.StdoutPipe()
	e.must(err, "start a member")
	e.must(m.cmd.Start(), "start a member")
	go m.listen(bufio.NewReader(out))
	e.Cleanup(func() { // if the storm has not ended it
		_ = m.cmd.Process.Kill()
		<-m.over
		_ = m.cmd.Wait()
	})
	e.closed(2*patience, m.ready)
	m.mu.Lock()
	there, alien := m.there, m.alien
	m.mu.Unlock()
	if !there {
		_ = m.cmd.Process.Kill()
		<-m.over
		_ = m.cmd.Wait()
		e.Fatalf(setupPrefix+"a consumer in a process of its own does not begin; it says %q. Does the program call conformance.Member first?", alien+m.said.String())
	}
	return m
}

// listen writes down what the member says, and answers.
func (m *member) listen(out *bufio.Reader) {
	defer close(m.over)
	for first := true; ; first = false {
		line, err := out.ReadBytes('\n')
		var w word
		if err == nil {
			err = json.Unmarshal(line, &w)
		}
		if err != nil {
			m.mu.Lock()
			m.alien = string(line)
			m.mu.Unlock()
			if first {
				close(m.ready)
			}
			return
		}
		m.hear(w)
		if first {
			close(m.ready)
		}
	}
}

func (m *member) hear(w word) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opened, m.there = w.Opened, true
	switch r, begun := m.runs[w.Call]; {
	case w.Call == 0:
		return
	case w.End && begun:
		delete(m.runs, w.Call)
		m.l.mu.Lock()
		m.l.ended(m.group, r.id, r.number, true)
		m.l.mu.Unlock()
	default:
		msg := pubsub.Message{ID: w.ID, Key: w.Key, Payload: w.Payload}
		m.runs[w.Call] = run{m.l.started(m.name, m.group, receipt{msg: msg, at: time.Now()}), w.ID}
	}
	m.answer(word{Call: w.Call})
}

// answer fails where the member has gone. m.mu is held.
func (m *member) answer(w word) {
	_ = json.NewEncoder(m.in).Encode(w) //nolint:errchkjson // what it did not hear does not matter then
}

// held is how many handlers run: no fewer deliveries are unsettled.
func (m *member) held() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.runs)
}

// kill ends the process with SIGKILL, and says whether that is what it died of. What it did last is in the history then.
func (m *member) kill() (killed bool) {
	m.l.forgetMember(m.name)
	m.e.must(m.cmd.Process.Kill(), "kill a member")
	<-m.over
	_ = m.cmd.Wait() // it says what the state says
	m.l.forgetMember(m.name)
	status, ok := m.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// sessions is how many the member has opened.
func (m *member) sessions() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.opened
}

// close tells the member to end, and waits until it has.
func (m *member) close() {
	m.mu.Lock()
	m.answer(word{})
	m.mu.Unlock()
	if !m.e.closed(patience, m.over) {
		_ = m.cmd.Process.Kill()
		<-m.over
	}
	m.e.must(m.cmd.Wait(), "end of %s, which said %q", m.name, &m.said)
}
