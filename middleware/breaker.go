package middleware

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/omnibus-go/omnibus/pubsub"
)

// BreakerOptions tunes Breaker. The zero value is safe.
type BreakerOptions struct {
	Window time.Duration // in which results are counted, in ten steps; 0 = 1min
	Min    int           // results that it takes to open; 0 = 10
	Ratio  float64       // of failures among them that opens, more than 0 to 1; 0 = 0.5
	Open   time.Duration // how long it stays open before it probes; 0 = 30s
	Probes int           // successes in a row that close it again; 0 = 1
	Burst  int           // messages that the handler gives up (Permanent, not Expected) within Window that open it, too; 0 = they do not

	// Outage says which failures count, beside timeouts of the engine and of Timeout, which always do; nil = those that are not classified
	// by the handler. The others count neither as failures nor as successes. Called by many goroutines.
	Outage func(error) bool

	// Key parts a subscription's messages into circuits, for instance by type or by the partner that they need; nil = one circuit. While one
	// is open its messages are snoozed one by one, and the others go on.
	Key  func(*pubsub.Delivery) string
	Keys int // circuits a subscription may have; the one used least recently is forgotten, and begins closed again; 0 = 1000

	OnChange func(Circuit) // told of every change; must not block; nil = nobody
}

// A Circuit is what OnChange is told.
type Circuit struct {
	Topic, Group, Key string       // of the subscription; Key is what BreakerOptions.Key said, "" without one
	State             CircuitState // that it has changed to
	Reason            error        // the last failure that counted; nil when it closes
}

// CircuitState is what a circuit does.
type CircuitState uint8

const (
	CircuitClosed  CircuitState = iota // passes messages, and counts
	CircuitOpen                        // passes none
	CircuitProbing                     // passes a few, to see
)

// String is "closed", "open" or "probing".
func (s CircuitState) String() string {
	return [...]string{"closed", "open", "probing"}[min(s, CircuitProbing)]
}

const (
	defaultBreakerWindow = time.Minute
	defaultBreakerMin    = 10
	defaultBreakerRatio  = 0.5
	defaultBreakerOpen   = 30 * time.Second
	defaultBreakerKeys   = 1000

	probeWait = time.Second      // for the outcome of a probe
	maxKept   = 1000             // probes of a burst that were given up and kept all the same
	behind    = time.Millisecond // how much later what was a probe is due than what has yet to be one
)

// Breaker stops a subscription while what its handler needs is down. When of the last Min results or more in Window at least Ratio were
// outages, the circuit opens: the subscription pauses for Open. No handler is called, nothing is fetched, no failure is counted, also not the
// one that opened the circuit, and State says Paused with the reason. Then Probes messages are tried; their success closes the circuit,
// an outage opens it again and costs its message nothing: that one waits, behind the others, so that the next probe is another
// message, and one message that always fails can neither keep the circuit open nor be given up for the outage. Only in an order
// in which it must not be overtaken (OrderStrict, or one key) it is the next probe too, as long as it fails with an outage.
//
// With Burst a handler that suddenly gives up everything, as after a bad deploy, is stopped before it has emptied the topic into the dead letters: the
// last of the burst and what follows it are kept, and so is a probe that is given up, but once: given up as a probe again, as where
// no other message may overtake it, it is a dead letter. So is every probe after a thousand that were kept in one burst. Either opens the circuit
// again, so there are at most Probes dead letters per Open. What the layers above refuse, such as Validate, does not count: a flood of broken messages
// switches nobody off.
//
// Each subscription has a circuit of its own, in this process: members find out for themselves.
//
// Do not use it for failures of single messages: Poison and the policy are for those. Do not use it where a few failures in a row are
// usual. With Key, messages of an open circuit wait within MaxParked and MaxInFlight: raise them, or make two subscriptions.
//
// A message costs about 700 ns and one allocation.
func Breaker(opts BreakerOptions) pubsub.Middleware {
	m := pubsub.Middleware{
		Name: "breaker", After: []string{"sign", "encrypt", "retry", "poison"},
		Why: "it counts the handler's failures only, before they are classified: forged messages must not switch a consumer off, " +
			"and an outage must not make poison of messages",
		Err: opts.check(),
	}
	opts = opts.withDefaults()
	m.Incoming = func(next pubsub.Handler) pubsub.Handler {
		if opts.Key == nil {
			c := newCircuit(&opts, "")
			return func(ctx context.Context, d *pubsub.Delivery) error { return c.handle(ctx, d, next) }
		}
		var mu sync.Mutex
		circuits := newLRU[string, *circuit](max(opts.Keys, 1))
		return func(ctx context.Context, d *pubsub.Delivery) error {
			key := opts.Key(d)
			mu.Lock()
			c := circuits.get(key)
			if c == nil {
				c = circuits.put(key)
				*c = newCircuit(&opts, key)
			}
			one := *c
			mu.Unlock()
			return one.handle(ctx, d, next)
		}
	}
	return m
}

func (o BreakerOptions) check() error {
	switch {
	case o.Window < 0:
		return fmt.Errorf("Window is %v; it cannot be negative", o.Window)
	case o.Min < 0:
		return fmt.Errorf("Min is %d; it cannot be negative", o.Min)
	case !(o.Ratio >= 0 && o.Ratio <= 1):
		return fmt.Errorf("Ratio is %v; it is more than 0 to 1, or 0 for the default", o.Ratio)
	case o.Open < 0:
		return fmt.Errorf("Open is %v; it cannot be negative", o.Open)
	case o.Probes < 0:
		return fmt.Errorf("Probes is %d; it cannot be negative", o.Probes)
	case o.Burst < 0:
		return fmt.Errorf("Burst is %d; it cannot be negative", o.Burst)
	case o.Keys < 0:
		return fmt.Errorf("Keys is %d; it cannot be negative", o.Keys)
	case o.Keys > 0 && o.Key == nil:
		return errors.New("Keys needs Key")
	}
	return nil
}

func (o BreakerOptions) withDefaults() BreakerOptions {
	if o.Window == 0 {
		o.Window = defaultBreakerWindow
	}
	if o.Min == 0 {
		o.Min = defaultBreakerMin
	}
	if o.Ratio == 0 {
		o.Ratio = defaultBreakerRatio
	}
	if o.Open == 0 {
		o.Open = defaultBreakerOpen
	}
	if o.Probes == 0 {
		o.Probes = 1
	}
	if o.Keys == 0 {
		o.Keys = defaultBreakerKeys
	}
	if o.Outage == nil {
		o.Outage = unclassified
	}
	return o
}

// A circuit is the library's state machine, and what we need to know beside it.
type circuit struct {
	opts  *BreakerOptions
	key   string
	cb    *gobreaker.TwoStepCircuitBreaker[struct{}]
	now   atomic.Uint32 // the CircuitState that the library has told last
	burst atomic.Bool   // it is open because of one, or a probe was given up since; set and cleared with the library's lock held

	mu      sync.Mutex // taken with the library's own held, never the other way round
	until   time.Time  // end of the open state
	reason  error
	given   []time.Time // when the latest messages were given up, at most Burst
	kept    map[probed]struct{}
	changes []change // that OnChange is to be told of
}

type change struct {
	to     CircuitState
	reason error
}

// A probed is a message that was given up as a probe, and kept.
type probed struct {
	topic, id string
	at        pubsub.Position
}

func probedOf(d *pubsub.Delivery) probed { return probed{d.Topic, d.ID, d.Position} }

var (
	errNeither = errors.New("neither") // a result that counts as nothing
	errBurst   = errors.New("burst")   // a result that opens the circuit at once
)

func newCircuit(opts *BreakerOptions, key string) *circuit {
	c := &circuit{opts: opts, key: key}
	c.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests: uint32(min(opts.Probes, 1<<30)), Interval: opts.Window, BucketPeriod: max(opts.Window/10, 1), Timeout: opts.Open,
		ReadyToTrip: func(n gobreaker.Counts) bool {
			all := float64(n.TotalFailures) + float64(n.TotalSuccesses)
			return c.burst.Load() || all >= float64(opts.Min) && float64(n.TotalFailures) >= opts.Ratio*all
		},
		OnStateChange: func(_ string, _, to gobreaker.State) { c.changed(to) },
		IsExcluded: func(err error) bool {
			if err == errBurst { //nolint:errorlint // as the other one it is ours, and never wrapped
				c.burst.Store(true) // here, because the library does not ask about the results of an earlier state
			}
			return err == errNeither //nolint:errorlint // as above
		},
	})
	return c
}

func (c *circuit) handle(ctx context.Context, d *pubsub.Delivery, next pubsub.Handler) error {
	settle, err := c.cb.Allow()
	if err != nil {
		return c.refuse(d)
	}
	result := errNeither
	defer func() { // also when the handler calls runtime.Goexit
		settle(result)
		c.tell(d)
	}()
	probe := !c.closed()
	err = next(ctx, d)
	switch {
	case err == nil:
		result = nil
		return nil
	case pubsub.HandedBack(ctx):
		return err
	}
	burst := c.bursts(err)
	if !burst && !errors.Is(withCause(ctx, err), pubsub.ErrTimeout) && !c.outage(err) {
		return err
	}
	c.note(err)
	if result = err; burst {
		result = errBurst
	}
	settle(result)
	settle = func(error) {}
	if !burst && !unclassified(err) || c.closed() {
		return err
	}
	if burst && probe && !c.keep(d) {
		return err
	}
	if burst {
		err = fmt.Errorf("one of a burst that is given up: %v", err) //nolint:errorlint // what the handler has said of it would win
	}
	if probe || c.opts.Key != nil {
		return pubsub.Snooze(c.wait()+behind, err) // the next probe is another message
	}
	return pubsub.Pause(c.wait(), err)
}

// bursts says whether a message that is given up is one too many.
func (c *circuit) bursts(err error) bool {
	if o, _ := pubsub.OutcomeOf(err); c.opts.Burst == 0 || o != pubsub.OutcomePermanent || pubsub.IsExpected(err) {
		return false
	}
	if c.burst.Load() {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.given = append(slices.DeleteFunc(c.given, func(t time.Time) bool { return now.Sub(t) >= c.opts.Window }), now)
	if len(c.given) > c.opts.Burst {
		c.given = slices.Delete(c.given, 0, 1)
	}
	return len(c.given) == c.opts.Burst
}

// keep says whether a probe that was given up is to be kept: where it comes as a probe again, nothing else can, or all have been tried.
func (c *circuit) keep(d *pubsub.Delivery) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := probedOf(d)
	if _, again := c.kept[k]; again || len(c.kept) == maxKept {
		return false
	}
	if c.kept == nil {
		c.kept = map[probed]struct{}{}
	}
	c.kept[k] = struct{}{}
	return true
}

func (c *circuit) closed() bool { return c.now.Load() == uint32(CircuitClosed) }

// refuse says for how long a message that is not let through waits.
func (c *circuit) refuse(d *pubsub.Delivery) error {
	c.tell(d) // the library may have found out just now that it is to probe
	wait := c.wait()
	c.mu.Lock()
	err := fmt.Errorf("the circuit is open: %v", c.reason) //nolint:errorlint // what the reason says about its own message is nothing to this one
	if _, kept := c.kept[probedOf(d)]; kept {
		wait += behind
	}
	c.mu.Unlock()
	if c.opts.Key != nil {
		return pubsub.Snooze(wait, err)
	}
	return pubsub.Pause(wait, err)
}

// wait is how long nothing will pass.
func (c *circuit) wait() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if left := time.Until(c.until); left >= 0 {
		return left + time.Millisecond // the library opens after that moment, not at it
	}
	return min(probeWait, c.opts.Open)
}

// outage asks the user's function. One that panics says no.
func (c *circuit) outage(err error) (is bool) {
	defer func() {
		if recover() != nil {
			is = false
		}
	}()
	return c.opts.Outage(err)
}

func (c *circuit) note(err error) {
	c.mu.Lock()
	c.reason = err
	c.mu.Unlock()
}

// changed is called by the library, with its lock held.
func (c *circuit) changed(to gobreaker.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	is := CircuitClosed
	switch to {
	case gobreaker.StateOpen:
		is, c.until = CircuitOpen, time.Now().Add(c.opts.Open)
	case gobreaker.StateHalfOpen:
		is = CircuitProbing
	case gobreaker.StateClosed:
		c.reason, c.given, c.kept = nil, nil, nil
		c.burst.Store(false)
	}
	c.now.Store(uint32(is))
	if c.opts.OnChange != nil {
		c.changes = append(c.changes, change{is, c.reason})
	}
}

// tell passes changes on, without a lock.
func (c *circuit) tell(d *pubsub.Delivery) {
	if c.opts.OnChange == nil {
		return
	}
	c.mu.Lock()
	changes := c.changes
	c.changes = nil
	c.mu.Unlock()
	for _, ch := range changes {
		c.opts.OnChange(Circuit{Topic: d.Topic, Group: d.Group, Key: c.key, State: ch.to, Reason: ch.reason})
	}
}
