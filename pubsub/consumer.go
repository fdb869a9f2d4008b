package pubsub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/internal/aside"
)

// A Consumer is a running subscription. All methods may be called concurrently.
//
// Inside, a feed per place (the topic, the group's quarantine, the tiers of its retries) fetches records; schedule.go puts them in order; workers
// run the handler; outcome.go decides what becomes of a message; settle.go tells the broker.
type Consumer struct {
	b       *Broker
	sub     Subscription
	chain   Handler         // the middleware around the handler
	batch   *batching       // nil for a handler of single messages
	pulls   bool            // a Receive loop takes the place of the workers
	tiers   []time.Duration // that retries are moved through, the shortest first; nil = they are not
	blocks  *blocks         // of BlockKey; nil = Continue
	observe []func(Event)
	log     *slog.Logger
	member  string
	begun   time.Time

	base context.Context // of the handlers: never ends by itself
	life context.Context // of the feeds: ends when nothing more is fetched
	stop context.CancelCauseFunc

	mu        sync.Mutex
	cond      sync.Cond // of mu: there is something ready, or the consumer is ending
	feeds     []*feed
	ready     queue
	keys      map[uint64]*keyQueue
	freeKeys  []*keyQueue
	waiting   dueHeap // for their time
	asleep    int     // of them, messages of tiers
	pasts     pasts
	leases    map[*item]struct{} // that a Receive loop has out
	parked    int                // behind a key that waits
	workers   []*worker
	idle      int       // workers that wait for something to do
	running   int       // handlers, and leases that a Receive loop has out
	moving    int       // messages on their way to another place
	successes []success // of replays, to be told
	telling   bool      // some are on their way
	stuck     int
	alarm     alarm // wakes what waits
	watch     alarm // ends handlers that take too long
	paused    bool
	until     time.Time // end of a Pause outcome
	why       error     // of a pause
	blocked   error     // why dead letters cannot be written
	draining  bool
	aborted   bool // the drain's time is over: handlers are cancelled
	stopped   bool // workers leave
	quiet     chan struct{}
	closing   bool          // it opens no sessions any more
	left      chan struct{} // closed when a consumer that finishes has nothing left to do
	last      time.Time     // what is due later is not waited for
	gone      int           // messages handed back where nobody takes them

	drainOnce sync.Once
	drainCtx  chan context.Context // the deadline of whoever asked first
	done      chan struct{}
	err       error // valid once done is closed
	drainErr  error
}

// Subscribe returns once the subscription is live, see Subscriber.
func (b *Broker) Subscribe(ctx context.Context, sub Subscription, h Handler) (*Consumer, error) {
	if h == nil {
		return nil, b.nilHandler(sub)
	}
	c, err := b.newConsumer(ctx, sub, h)
	if err != nil {
		return nil, err
	}
	return c, c.start(ctx)
}

func (b *Broker) nilHandler(sub Subscription) error {
	if err := b.usable("subscribe", sub.Topic); err != nil {
		return err
	}
	return invalidOn(b, "subscribe", sub.Topic, fmt.Errorf("the handler is nil"), "pass a function")
}

func (b *Broker) newConsumer(ctx context.Context, sub Subscription, h Handler) (*Consumer, error) {
	if err := b.usable("subscribe", sub.Topic); err != nil {
		return nil, err
	}
	if err := b.checkSubscription("subscribe", sub); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, b.fail(ctx, "subscribe", sub.Topic, err)
	}
	sub = sub.withDefaults()
	sub.Use = slices.Clone(sub.Use)
	layers := append(slices.Clone(b.opts.Use), sub.Use...)
	if err := checkLayers(layers); err != nil {
		return nil, invalidOn(b, "subscribe", sub.Topic, err, "")
	}
	chain, err := wrapHandler(layers, h)
	if err != nil {
		return nil, invalidOn(b, "subscribe", sub.Topic, err, "")
	}
	if sub.Group == Broadcast && sub.DeadLetter.Topic == "" {
		sub.DeadLetter.Drop = true // it has no place of its own that would outlive it
	}
	c := &Consumer{
		b: b, sub: sub, chain: chain, observe: observers(layers),
		log:    b.log.With("topic", sub.Topic, "group", sub.Group),
		member: b.opts.Service + "-" + b.ids.id(),
		base:   context.WithoutCancel(ctx), begun: time.Now(),
		keys: map[uint64]*keyQueue{}, leases: map[*item]struct{}{}, drainCtx: make(chan context.Context, 1), done: make(chan struct{}),
	}
	if c.tiers = b.tiersFor(&sub); len(c.tiers) > 0 {
		room, _ := c.roomBesideTiers()
		c.sub.MaxParked = min(c.sub.MaxParked, room)
	}
	if sub.AfterDeadLetter == BlockKey {
		c.blocks = c.newBlocks()
	}
	c.cond.L = &c.mu
	c.life, c.stop = context.WithCancelCause(c.base)
	c.alarm.f, c.watch.f = c.ring, c.overdue
	return c, nil
}

// start opens the feeds and lets them run.
func (c *Consumer) start(ctx context.Context) error {
	openCtx, cancel := withDefaultTimeout(ctx, openTimeout)
	defer cancel()
	end, _ := openCtx.Deadline()
	err := c.checkTarget(ctx, time.Until(end)/2) // the rest is for the broker's own
	if err == nil {
		err = c.open(openCtx)
	}
	if err == nil && c.blocks != nil {
		err = c.mayLook(openCtx)
	}
	if err != nil {
		c.abandon()
		return c.b.fail(ctx, "subscribe", c.sub.Topic, err)
	}
	c.b.mu.Lock()
	if err := c.b.usable("subscribe", c.sub.Topic); err != nil {
		c.b.mu.Unlock()
		c.abandon()
		return err
	}
	c.b.consumers[c] = struct{}{}
	c.b.mu.Unlock()

	mean, longest := c.sub.Retry.Span()
	c.log.Info("subscribed", "order", c.sub.Order.String(), "concurrency", c.sub.Concurrency,
		"attempts", c.sub.Retry.MaxAttempts, "retried_for_about", mean, "at_most", longest)
	for _, f := range c.feeds {
		f.start()
	}
	go c.live(ctx)
	return nil
}

// abandon closes what start had opened.
func (c *Consumer) abandon() {
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	for _, f := range c.feeds {
		if f.src != nil {
			_ = f.src.Close(ctx) // nothing was received
		}
	}
	c.stop(nil)
	close(c.done)
}

// open opens the first session of each place: of the topic first, which makes the group, then of the others at once, since joining a group may
// take seconds.
func (c *Consumer) open(ctx context.Context) error {
	at := Place{Topic: c.sub.Topic, Group: c.sub.Group, Kind: PlaceMain}
	c.feeds = []*feed{newFeed(c, at)}
	if at.Kind = PlaceQuarantine; c.quarantines() {
		c.feeds = append(c.feeds, newFeed(c, at))
	}
	at.Kind = PlaceRetry
	for _, at.Tier = range c.tiers {
		c.feeds = append(c.feeds, newFeed(c, at))
	}
	errs := make([]error, len(c.feeds))
	open := func(i int) { c.feeds[i].src, errs[i] = c.b.drv.OpenSource(ctx, c.feeds[i].spec()) }
	if open(0); errs[0] != nil {
		return errs[0]
	}
	var all sync.WaitGroup
	for i := range c.feeds[1:] {
		all.Go(func() { open(i + 1) })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// quarantines says whether messages that take the process down can be told apart here.
func (c *Consumer) quarantines() bool {
	return c.b.caps.Redelivery && c.b.caps.Deliveries && c.sub.Group != Broadcast && c.sub.Retry.MaxAttempts != Unlimited
}

// live waits for the end of the consumer and carries it out.
func (c *Consumer) live(ctx context.Context) {
	var drain context.Context
	select {
	case <-ctx.Done():
	case drain = <-c.drainCtx:
	case <-c.life.Done():
	}
	if drain == nil {
		var cancel context.CancelFunc
		drain, cancel = context.WithTimeout(context.Background(), c.b.opts.DrainTimeout)
		defer cancel()
	}
	failure := c.failure()
	if failure == nil && !c.b.caps.Redelivery {
		c.drainErr = c.finish(drain)
	}
	c.stop(nil)
	c.drainErr = errors.Join(c.drainErr, c.drain(drain))
	if c.blocks != nil {
		c.blocks.watchers.Wait()
	}
	c.b.mu.Lock()
	delete(c.b.consumers, c)
	if failure != nil && c.b.failure == nil && !aside.Is(c.base) {
		c.b.failure = failure
		close(c.b.failed)
	}
	c.b.mu.Unlock()
	c.err = failure
	close(c.done)
}

// failure is why the consumer ended by itself.
func (c *Consumer) failure() error {
	if cause := context.Cause(c.life); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// Drain stops fetching, lets running handlers finish and settles them, hands the rest back, and ends the consumer. Where ctx (or
// DrainTimeout, if the consumer is ending already) is over first, handlers are cancelled; one that ignores it is named in an ErrTimeout.
func (c *Consumer) Drain(ctx context.Context) error {
	c.drainOnce.Do(func() { c.drainCtx <- ctx })
	select {
	case <-c.done:
		return c.drainErr
	case <-ctx.Done():
	}
	late := time.NewTimer(cancelGrace + closeGrace) // a drain that ends with this ctx names what it could not wait for
	defer late.Stop()
	select {
	case <-c.done:
		return c.drainErr
	case <-late.C:
		return &Error{Op: "drain", Broker: c.b.name, Topic: c.sub.Topic, Code: ErrTimeout, Err: context.Cause(ctx),
			Hint: "another drain with a later deadline goes on"}
	}
}

// Done is closed when the consumer has ended.
func (c *Consumer) Done() <-chan struct{} { return c.done }

// Err tells why the consumer ended; nil while it runs, and after a drain.
func (c *Consumer) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// Pause stops fetching and starting handlers until Resume. Running handlers go on; messages that are held stay ours.
func (c *Consumer) Pause() {
	c.mu.Lock()
	c.paused = true
	c.mu.Unlock()
}

// Resume ends Pause, and what is left of a Pause outcome.
func (c *Consumer) Resume() {
	c.mu.Lock()
	c.paused, c.until, c.why = false, time.Time{}, nil
	c.unpark()
	c.mu.Unlock()
}

// unpark lets workers and feeds look again. mu is held.
func (c *Consumer) unpark() {
	c.cond.Broadcast()
	c.spawn()
	for _, f := range c.feeds {
		f.signalRoom()
	}
}

// isPaused says whether nothing is to be fetched or started. mu is held.
func (c *Consumer) isPaused() bool {
	if c.paused {
		return true
	}
	if c.until.IsZero() {
		return false
	}
	if time.Now().Before(c.until) {
		return true
	}
	c.until, c.why = time.Time{}, nil
	return false
}

// Lag tells how far the group is behind, all members together. It asks the broker, see Broker.Lag.
func (c *Consumer) Lag(ctx context.Context) (Lag, error) {
	return c.b.Lag(ctx, c.sub.Topic, c.sub.Group)
}

// State is a snapshot of a consumer.
type State struct {
	Phase    Phase // what it does
	Reason   error // why it is paused, blocked or reconnecting, or why blocked keys stay so while it runs; nil otherwise, and after Consumer.Pause
	InFlight int   // messages held: running, ready, parked and waiting
	Parked   int   // behind a key that waits for its retry
	Waiting  int   // for a retry
	Stuck    int   // handlers past their timeout that go on
	Bytes    int64 // of the messages held, see Message.Size

	BlockedKeys int // of the group, by what this consumer knows of its dead letters, see BlockKey
}

// Phase of a consumer's life. Where several hold, State has the last one of this list, and Reconnecting before Blocked.
type Phase uint8

const (
	Running      Phase = iota // it fetches and handles
	Standby                   // another member of the exclusive group is active
	Paused                    // by Consumer.Pause or by the outcome Pause
	Reconnecting              // the broker is away; it tries again by itself
	Blocked                   // MaxParked is full, or the dead letters cannot be written
	Draining                  // it fetches nothing more and ends when its handlers have
	Stopped                   // it has ended, see Consumer.Err
)

// String is the phase in lower case, as in "running".
func (p Phase) String() string {
	return enumText(p, "running", "standby", "paused", "reconnecting", "blocked", "draining", "stopped")
}

// slowMove is how long a dead letter may take to be confirmed before State says so: well within the 5 s in which it is to be seen.
const slowMove = 2 * time.Second

// State is a snapshot of what the consumer does now. It asks nobody, so it is cheap.
func (c *Consumer) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := State{Parked: c.parked, Waiting: len(c.waiting), Stuck: c.stuck}
	if c.blocks != nil {
		s.BlockedKeys = len(c.blocks.book.open)
	}
	var down error
	blocked := c.blocked
	for _, f := range c.feeds {
		s.InFlight += f.held
		s.Bytes += f.bytes
		if f.down != nil {
			down = f.down
		}
		if c.moving == 0 {
			continue
		}
		for it := f.oldest; it != nil; it = it.after {
			if it.state == itemMoving && blocked == nil && time.Since(it.due) > slowMove {
				blocked = fmt.Errorf("message %s waits for its copy to be confirmed since %v", it.rec.Msg.ID, it.due.Format(time.RFC3339))
			}
		}
	}
	switch {
	case c.stopped:
		s.Phase = Stopped
	case c.draining, c.closing:
		s.Phase = Draining
	case down != nil:
		s.Phase, s.Reason = Reconnecting, down
	case blocked != nil:
		s.Phase, s.Reason = Blocked, blocked
	case c.parkedFull():
		s.Phase, s.Reason = Blocked, fmt.Errorf("%d messages wait for a retry or behind one, MaxParked is %d", c.parking(), c.sub.MaxParked)
	case c.isPaused():
		s.Phase, s.Reason = Paused, c.why
	case len(c.feeds) > 0 && len(c.feeds[0].lanes) == 0:
		s.Phase = Standby
	case c.blocks != nil:
		s.Reason = c.blocks.unseen
	}
	return s
}

// Lag is how far a group is behind. Look at Kind first: unknown is not 0.
type Lag struct {
	Messages int64     // that the group has not settled, as far as Kind says; with LagUnknown it means nothing
	Kind     LagKind   // what Messages counts
	Oldest   time.Time // when the oldest message not yet settled was published; zero = none, or the broker does not say: most do not
}

func (c *Consumer) emit(ev Event) {
	ev.Topic, ev.Group = c.sub.Topic, c.sub.Group
	for _, o := range c.observe {
		c.observed(o, ev)
	}
}

// observed calls one observer. Its panic must not end the process.
func (c *Consumer) observed(o func(Event), ev Event) {
	defer func() {
		if r := recover(); r != nil {
			c.log.Error("an observer panicked", "event", ev.Kind.String(), "err", newPanic(r))
		}
	}()
	o(ev)
}

func withDefaultTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}

// An alarm is a timer that is set to the earliest of several moments. Its mu is the consumer's.
type alarm struct {
	f     func()
	timer *time.Timer
	at    time.Time // zero = not set
}

func (a *alarm) set(at time.Time) {
	if !a.at.IsZero() && !at.Before(a.at) {
		return
	}
	a.at = at
	if a.timer == nil {
		a.timer = time.AfterFunc(time.Until(at), a.f)
		return
	}
	a.timer.Reset(time.Until(at))
}

func (a *alarm) stop() {
	if a.timer != nil {
		a.timer.Stop()
	}
}
