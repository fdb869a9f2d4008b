package pubsub

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/internal/backoff"
)

// A Broker is an open connection to a broker: a Publisher and a Subscriber. Safe for concurrent use.
type Broker struct {
	drv     Driver
	name    string
	caps    Capabilities
	opts    Options
	host    string // this one's, for dead letters; "" = unknown
	version string // of the program
	log     *slog.Logger
	observe []func(Event)
	ids     idSource
	infos   topicCache
	own     *publisher // the Broker's own Publish, PublishBatch, PublishAsync and Flush
	moves   *publisher // retries, quarantine and dead letters, on their way to places of ours

	life context.Context // ends when Close begins to disconnect
	end  context.CancelFunc

	mu         sync.Mutex
	publishers []*publisher
	consumers  map[*Consumer]struct{}
	failed     chan struct{} // closed when a consumer ended by itself; for Run
	failure    error         // why
	closing    chan struct{} // closed by the first Close
	closed     chan struct{} // closed when it is done
	broken     error         // options that cannot be used: every call returns it
}

var (
	_ Publisher  = (*Broker)(nil)
	_ Subscriber = (*Broker)(nil)
)

// Options apply to a whole Broker. A nil *Options is the zero value.
type Options struct {
	Service      string        // named in dead letters and client IDs; "" = the program's name
	Logger       *slog.Logger  // nil = silent; its handler must not call into the Broker
	Use          []Middleware  // from the wire inwards, for every publisher and subscription
	Require      Capabilities  // each field: at least; Open fails where the broker has less
	Manage       Manage        // zero = Create: what Ensure and Subscribe need is created, durable; Verify; Off
	DrainTimeout time.Duration // for Run, Close and an ended ctx; 0 = 30s
	MaxDowntime  time.Duration // reconnecting for longer ends consumers; 0 = for ever
}

func (o *Options) check() error {
	switch {
	case o.Manage > Off:
		return fmt.Errorf("Options.Manage %d is none of Create, Verify, Off", o.Manage)
	case o.DrainTimeout < 0:
		return fmt.Errorf("Options.DrainTimeout is %v; it cannot be negative", o.DrainTimeout)
	case o.MaxDowntime < 0:
		return fmt.Errorf("Options.MaxDowntime is %v; it cannot be negative", o.MaxDowntime)
	}
	return checkLayers(o.Use)
}

const (
	defaultDrainTimeout = 30 * time.Second
	openTimeout         = 10 * time.Second
)

// New builds a Broker over a driver, for adapters, and owns d from then on. Where it returns an error d is closed, and the Broker is
// not nil: every call of it returns that error.
func New(ctx context.Context, d Driver, opts *Options) (*Broker, error) {
	b := &Broker{
		drv: d, name: d.Name(), caps: d.Capabilities(),
		consumers: map[*Consumer]struct{}{}, failed: make(chan struct{}), closing: make(chan struct{}), closed: make(chan struct{}),
	}
	b.life, b.end = context.WithCancel(context.WithoutCancel(ctx))
	if opts != nil {
		b.opts = *opts
	}
	b.host, _ = os.Hostname() // a dead letter without it is better than none
	b.version = buildVersion()
	b.opts.Use = slices.Clone(b.opts.Use)
	if b.broken = b.checkOpen(ctx); b.broken != nil {
		b.end()
		close(b.closing)
		close(b.closed)
		closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), openTimeout)
		defer cancel()
		_ = d.Close(closeCtx) // the reason why it cannot be used is worth more than what closing says
		return b, b.broken
	}
	if b.opts.Service == "" {
		b.opts.Service = filepath.Base(os.Args[0])
	}
	if b.opts.DrainTimeout == 0 {
		b.opts.DrainTimeout = defaultDrainTimeout
	}
	b.log = b.opts.Logger
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	b.log = b.log.With("broker", b.name)
	b.observe = observers(b.opts.Use)
	b.own = newPublisher(b, PublisherOptions{}.withDefaults())
	b.moves = newPublisher(b, PublisherOptions{}.withDefaults())
	b.publishers = []*publisher{b.own, b.moves}
	return b, nil
}

func (b *Broker) checkOpen(ctx context.Context) error {
	fail := func(code Code, err error, hint string) error {
		return &Error{Op: "open", Broker: b.name, Code: code, Err: err, Hint: hint}
	}
	if err := ctx.Err(); err != nil {
		return fail(ErrCanceled, err, "")
	}
	if err := b.opts.check(); err != nil {
		return fail(ErrInvalid, err, "")
	}
	if miss := b.caps.lacks(b.opts.Require); miss != "" {
		return fail(ErrUnsupported, errors.New(miss), "Options.Require asks for what this broker does not have")
	}
	if b.caps.Durability < Process && !b.caps.OptedDown {
		return fail(ErrUnsupported, fmt.Errorf("its durability is %v: a nil from Publish would not survive a crash of the broker", b.caps.Durability),
			"make the broker durable, or accept it by name with ?durability="+b.caps.Durability.String())
	}
	return nil
}

// usable returns the error of every call of a Broker that is closed or never was open.
func (b *Broker) usable(op, topic string) error {
	if b.broken != nil {
		return b.broken
	}
	select {
	case <-b.closing:
		return &Error{Op: op, Broker: b.name, Topic: topic, Code: ErrClosed}
	default:
		return nil
	}
}

// fail makes an *Error of what a driver or a context said. ctx is the caller's: where it has not ended, a deadline of the engine or of
// the adapter has, and the broker is what did not answer.
func (b *Broker) fail(ctx context.Context, op, topic string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	e := &Error{Op: op, Broker: b.name, Topic: topic, Err: err}
	switch {
	case !isContextError(err):
		if e.Code, _ = b.drv.Classify(err); e.Code == ErrNotFound && b.opts.Manage != Create && (op == "ensure" || op == "subscribe") {
			e.Hint = fmt.Sprintf("Options.Manage is %v, which makes nothing: Ensure of a Broker with Create makes it", b.opts.Manage)
		}
	case ctx.Err() != nil:
		e.Code = ErrCanceled
	default:
		e.Code, e.Hint = ErrUnavailable, "the broker did not answer in time; a ctx with a deadline says how long to wait"
	}
	return e
}

// Publish sends one message, see Publisher.
func (b *Broker) Publish(ctx context.Context, topic string, msg Message) error {
	if b.broken != nil {
		return b.broken
	}
	return b.own.Publish(ctx, topic, msg)
}

// PublishBatch sends several in order, see Publisher.
func (b *Broker) PublishBatch(ctx context.Context, topic string, msgs []Message) error {
	if b.broken != nil {
		return b.broken
	}
	return b.own.PublishBatch(ctx, topic, msgs)
}

// PublishAsync hands one message over, see Publisher.
func (b *Broker) PublishAsync(ctx context.Context, topic string, msg Message, done func(Receipt, error)) {
	if b.broken != nil {
		if done != nil {
			done(Receipt{Topic: topic, ID: msg.ID, Key: msg.Key}, b.broken)
		}
		return // without done the error comes from Flush and Close
	}
	b.own.PublishAsync(ctx, topic, msg, done)
}

// Flush waits for all publishers of this Broker, see Publisher.
func (b *Broker) Flush(ctx context.Context) error {
	if b.broken != nil {
		return b.broken
	}
	b.mu.Lock()
	all := slices.Clone(b.publishers)
	b.mu.Unlock()
	var errs []error
	for _, p := range all {
		errs = append(errs, p.Flush(ctx))
	}
	return errors.Join(errs...)
}

// Publisher returns a publisher with options of its own. It is closed with the Broker.
func (b *Broker) Publisher(opts PublisherOptions) (Publisher, error) {
	if err := b.usable("publisher", ""); err != nil {
		return nil, err
	}
	fail := func(code Code, format string, args ...any) (Publisher, error) {
		return nil, &Error{Op: "publisher", Broker: b.name, Code: code, Err: fmt.Errorf(format, args...)}
	}
	switch {
	case opts.Ack > AckNone:
		return fail(ErrInvalid, "PublisherOptions.Ack %d is none of AckDurable, AckLeader, AckNone", opts.Ack)
	case opts.MaxPending < 0, opts.MaxPendingBytes < 0, opts.Timeout < 0:
		return fail(ErrInvalid, "PublisherOptions has a negative bound")
	case opts.DedupByID && b.caps.Dedup == 0:
		return fail(ErrUnsupported, "PublisherOptions.DedupByID")
	}
	p := newPublisher(b, opts.withDefaults())
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.usable("publisher", ""); err != nil { // Close has looked at the list already, or will see p there
		return nil, err
	}
	b.publishers = append(b.publishers, p)
	return p, nil
}

// Run waits until ctx ends or a consumer fails for good, then drains all consumers. It returns nil after a
// clean drain, else why a consumer ended or what could not be drained. Publishing works until Close.
func (b *Broker) Run(ctx context.Context) error {
	if err := b.usable("run", ""); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-b.failed:
	case <-b.closing:
	}
	return errors.Join(b.firstFailure(), b.drainAll())
}

func (b *Broker) firstFailure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failure
}

func (b *Broker) drainAll() error {
	b.mu.Lock()
	var all []*Consumer
	for c := range b.consumers {
		all = append(all, c)
	}
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), b.opts.DrainTimeout)
	defer cancel()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, c := range all {
		wg.Go(func() { errs[i] = c.Drain(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Close drains the consumers, flushes the publishers, both within DrainTimeout, and disconnects. It returns what could not be
// drained or confirmed, an ErrTimeout naming the handler where one ignores its context. Further calls wait for the first and return nil.
func (b *Broker) Close() error {
	if b.broken != nil {
		return nil
	}
	b.mu.Lock()
	select {
	case <-b.closing:
		b.mu.Unlock()
		<-b.closed
		return nil
	default:
	}
	// from here usable refuses new calls; drained handlers may publish until the publishers close below
	close(b.closing)
	all := slices.Clone(b.publishers)
	b.mu.Unlock()

	errs := []error{b.drainAll()}
	ctx, cancel := context.WithTimeout(context.Background(), b.opts.DrainTimeout)
	defer cancel()
	for _, p := range all {
		errs = append(errs, p.close(ctx))
	}
	b.end()
	closeCtx, cancelClose := context.WithTimeout(context.Background(), openTimeout)
	defer cancelClose()
	errs = append(errs, b.fail(context.Background(), "close", "", b.drv.Close(closeCtx)))
	close(b.closed)
	return errors.Join(errs...)
}

// DeliverTo publishes to one group of a topic only: replays and retries. The Topic may be a pattern, as the group's is: then
// it is Delivery.Topic, too.
func (b *Broker) DeliverTo(ctx context.Context, topic, group string, msg Message) error {
	if err := b.usable("publish", topic); err != nil {
		return err
	}
	err := checkFilter(topic)
	if err == nil {
		err = checkGroup(group)
	}
	if err != nil {
		return &Error{Op: "publish", Broker: b.name, Topic: topic, Code: ErrInvalid, Err: err, Hint: namesHint}
	}
	return b.own.publishTo(ctx, Place{Topic: topic, Group: group, Kind: PlaceRetry}, msg)
}

// Browse reads a place without taking anything away, from a position on (zero = the beginning), and ends at its end.
func (b *Broker) Browse(ctx context.Context, p Place, from Position) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if err := b.usable("browse", p.Topic); err != nil {
			yield(Record{}, err)
			return
		}
		br, ok := b.drv.(Browser)
		if !ok || p.Kind == PlaceMain && !b.caps.History {
			yield(Record{}, &Error{Op: "browse", Broker: b.name, Topic: p.Topic, Code: ErrUnsupported, Err: errors.New("Browse")})
			return
		}
		for r, err := range br.Browse(ctx, p, from) {
			if !yield(r, b.fail(ctx, "browse", p.Topic, err)) || err != nil {
				return
			}
		}
	}
}

// Capabilities are those of the connected server.
func (b *Broker) Capabilities() Capabilities { return b.caps }

// Ping asks the broker for an answer.
func (b *Broker) Ping(ctx context.Context) error {
	if err := b.usable("ping", ""); err != nil {
		return err
	}
	return b.fail(ctx, "ping", "", b.drv.Ping(ctx))
}

// Lag tells how far a group is behind, whoever its members are.
func (b *Broker) Lag(ctx context.Context, topic, group string) (Lag, error) {
	if err := b.usable("lag", topic); err != nil {
		return Lag{}, err
	}
	l, ok := b.drv.(Lagger)
	if !ok || b.caps.Lag == LagUnknown {
		return Lag{}, &Error{Op: "lag", Broker: b.name, Topic: topic, Code: ErrUnsupported, Err: errors.New("Lag")}
	}
	lag, err := l.Lag(ctx, topic, group)
	return lag, b.fail(ctx, "lag", topic, err)
}

// Seek moves a group that has no running members (else ErrConflict). Needs History.
func (b *Broker) Seek(ctx context.Context, topic, group string, to Start) error {
	if err := b.usable("seek", topic); err != nil {
		return err
	}
	s, ok := b.drv.(Seeker)
	if !ok || !b.caps.History {
		return &Error{Op: "seek", Broker: b.name, Topic: topic, Code: ErrUnsupported, Err: errors.New("Seek")}
	}
	return b.fail(ctx, "seek", topic, s.Seek(ctx, topic, group, to))
}

// As stores the native client in target, see the function As.
func (b *Broker) As(target any) bool { return b.drv.As(target) }

// As returns the native object of type T behind a *Broker or a *Delivery. Each adapter lists the types it has.
func As[T any](x interface{ As(target any) bool }) (T, bool) { var t T; return t, x.As(&t) }

// retryDelays are the pauses between attempts to reach a broker again.
func retryDelays() backoff.Backoff {
	return backoff.Backoff{Initial: 50 * time.Millisecond, Max: 2 * time.Second}
}
