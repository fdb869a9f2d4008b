package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

func lifecycle() []Property {
	return append([]Property{
		{
			Name: "Lifecycle/CancelEndsAtOnce", Promises: []int{2, 13}, run: cancelEndsAtOnce, waits: 5 * time.Second,
			Doc: "Cancelling a publish, a flush, a subscription or a Receive loop ends it within a second, whatever the broker does.",
		},
		{
			Name: "Lifecycle/CloseTwice", Promises: []int{15}, run: closeTwice,
			Doc: "Close may be called again and concurrently, and ends within its deadline.",
		},
		{
			Name: "Lifecycle/CloseNamesStuckHandler", Promises: []int{13, 15}, Gate: redelivers(), run: closeNamesStuckHandler, waits: 2 * time.Second,
			Doc: "Close with a handler that ignores its context is an ErrTimeout that names message and group, and the message comes again.",
		},
		{
			Name: "Lifecycle/UseAfterClose", Promises: []int{15, 18}, run: useAfterClose,
			Doc: "After Close every call is ErrClosed, no handler starts, and another process has the group to itself.",
		},
		{
			Name: "Lifecycle/NoLeak", Promises: []int{15}, run: noLeak, alone: true,
			Doc: "No goroutine outlives Close.",
		},
		{
			Name: "Lifecycle/Drain", Promises: []int{13}, Gate: redelivers(), run: drain,
			Doc: "Draining under load loses nothing and handles nothing twice.",
		},
		{
			Name: "Lifecycle/DrainsRecordNothing", Promises: []int{13}, Gate: redelivers(), run: drainsRecordNothing,
			Doc: "50 drains under load record no failure and dead-letter nothing.",
		},
		{
			Name: "Lifecycle/DrainsDuringRetries", Promises: []int{9, 13}, Gate: redelivers(), run: drainsDuringRetries,
			Doc: "50 drains while messages wait for their retries and handlers are cut short record no failure, dead-letter nothing and lose nothing.",
		},
		{
			Name: "Lifecycle/LiveOnReturn", Promises: []int{17}, run: liveOnReturn,
			Doc: "What is published once Subscribe has returned is received.",
		},
		{
			Name: "Lifecycle/UnknownParameter", Promises: []int{16}, run: unknownParameter,
			Doc: "A parameter of the URL that the adapter does not know is refused at Open, by name.",
			needs: func(h Harness) string {
				if h.OpenURL == nil {
					return "OpenURL"
				}
				return ""
			},
		},
		{
			Name: "Lifecycle/VanishedTopic", Promises: []int{14}, Gate: redelivers(), run: vanishedTopic, waits: 30 * time.Second,
			Doc: "A topic that vanishes ends its consumers with ErrNotFound after a grace of 30 s, and is not made again.",
			needs: func(h Harness) string {
				if h.DeleteTopic == nil {
					return "DeleteTopic"
				}
				return ""
			},
		},
	}, forms()...)
}

func cancelEndsAtOnce(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(30, 3)...)
	l.await("g")
	pub, err := p.Publisher(pubsub.PublisherOptions{MaxPending: 4, Timeout: 5 * time.Second})
	e.must(err, "make a publisher")
	endsAtOnce := func(what string, open func(ctx context.Context) (wait func())) {
		ctx, cancel := context.WithCancel(e.Context())
		defer cancel()
		done, wait := make(chan struct{}), open(ctx)
		go func() { defer close(done); wait() }()
		time.Sleep(100 * time.Millisecond) // it has begun
		cancel()
		begin := time.Now()
		if !e.closed(patience, done) || time.Since(begin) > time.Second {
			e.Errorf("%s ended %v after its cancellation", what, time.Since(begin))
		}
	}
	endsAtOnce("a subscription", func(ctx context.Context) func() {
		c, err := p.Subscribe(ctx, e.sub(topic, "g2"), l.handler(p, "g2", nil))
		e.must(err, "subscribe")
		return func() { <-c.Done() }
	})
	endsAtOnce("a Receive loop", func(ctx context.Context) func() {
		seq, err := p.Receive(ctx, e.sub(topic, "g3"))
		e.must(err, "receive")
		return func() {
			for range seq { //nolint:errcheck // there is nothing to look at
				e.Errorf("a message that nobody sent")
			}
		}
	})
	atOnce := func(what string, f func(ctx context.Context)) {
		endsAtOnce(what, func(ctx context.Context) func() { return func() { f(ctx) } })
	}
	p.link.faults(func(pubsub.Out) action { return action{kind: swallow} })
	atOnce("a publish without an answer", func(ctx context.Context) {
		err := pub.Publish(ctx, topic, pubsub.Message{ID: "swallowed"})
		e.wantCode(err, pubsub.ErrUnconfirmed, "a publish that was cancelled while it waited for the answer")
	})
	atOnce("a batch without an answer", func(ctx context.Context) {
		if err := pub.PublishBatch(ctx, topic, make([]pubsub.Message, 3)); err == nil {
			e.Errorf("a batch without an answer returned nil")
		}
	})
	atOnce("a publish into a full window", func(ctx context.Context) {
		for range 6 {
			pub.PublishAsync(ctx, topic, pubsub.Message{}, nil)
		}
	})
	atOnce("a flush", func(ctx context.Context) {
		if err := pub.Flush(ctx); err == nil {
			e.Errorf("a flush that was cancelled with messages in the window returned nil")
		}
	})
	p.link.faults(nil)
	l.mustPublish(p, topic, l.messages(3, 3)...)
	l.await("g")
	l.verify("g")
}

func closeTwice(e *env) {
	const drain = 2 * time.Second
	p, topic, l := e.openWith(&pubsub.Options{DrainTimeout: drain}), e.topic("a"), e.ledger()
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(30, 3)...)
	l.await("g")
	const limit = 2*drain + 11*time.Second // consumers, publishers, and 10 s to disconnect
	took, ended := e.within(2*time.Minute, func() {
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if err := p.Close(); err != nil {
					e.Errorf("Close returned %v", err)
				}
			})
		}
		wg.Wait()
	})
	if !ended || took > limit {
		e.Errorf("five concurrent calls of Close took %v, want at most %v", took, limit)
	}
	if took, _ = e.within(patience, func() { e.must(p.Close(), "close again") }); took > time.Second {
		e.Errorf("closing what is closed took %v", took)
	}
	l.verify()
}

func closeNamesStuckHandler(e *env) {
	const drain = time.Second
	p, topic, l := e.openWith(&pubsub.Options{DrainTimeout: drain}), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	stuck, running := e.gate(), make(chan struct{})
	e.subscribe(p, s, l.handler(p, "g", func(context.Context, *pubsub.Delivery) error {
		if l.handled("g") < 30 {
			return nil
		}
		close(running)
		stuck.wait() // whatever its context says
		return errors.New("too late")
	}))
	l.mustPublish(p, topic, l.messages(31, 0)...)
	if !e.closed(patience, running) {
		e.Fatalf("%s", l.progress("g"))
	}
	var err error
	took, ended := e.within(2*time.Minute, func() { err = p.Close() })
	if limit := 2*drain + 15*time.Second; !ended || took > limit {
		e.Errorf("Close with a stuck handler took %v, want at most %v", took, limit)
	}
	calls := l.calls("g")
	id := calls[len(calls)-1].msg.ID
	if !errors.Is(err, pubsub.ErrTimeout) || !strings.Contains(fmt.Sprint(err), id) || !strings.Contains(fmt.Sprint(err), `"g"`) {
		e.Errorf("Close returned %v; want %q that names message %s and group g", err, pubsub.ErrTimeout.Error(), id)
	}
	q := e.open()
	e.subscribe(q, s, l.handler(q, "g", nil))
	l.await("g")
	stuck.open()
	l.verify()
}

func useAfterClose(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	e.subscribe(p, s, l.handler(p, "g", func(context.Context, *pubsub.Delivery) error {
		if p.Ping(e.Context()) != nil {
			e.Errorf("a handler runs on a broker that is closed")
		}
		return nil
	}))
	l.mustPublish(p, topic, l.messages(30, 3)...)
	l.await("g")
	pub, err := p.Publisher(pubsub.PublisherOptions{})
	e.must(err, "make a publisher")
	e.must(p.Close(), "close")
	ctx, m := e.Context(), pubsub.Message{}
	_, pubErr := p.Publisher(pubsub.PublisherOptions{})
	_, subErr := p.Subscribe(ctx, s, l.handler(p, "g", nil))
	_, batchErr := p.SubscribeBatch(ctx, s, pubsub.Batch{}, func(context.Context, []*pubsub.Delivery) error { return nil })
	_, pullErr := p.Receive(ctx, s)
	_, lagErr := p.Lag(ctx, topic, "g")
	asyncErr := make(chan error, 1)
	p.PublishAsync(ctx, topic, m, func(_ pubsub.Receipt, err error) { asyncErr <- err })
	for what, err := range map[string]error{
		"Publish": p.Publish(ctx, topic, m), "a publisher's Publish": pub.Publish(ctx, topic, m), "Publisher": pubErr, "Subscribe": subErr,
		"SubscribeBatch": batchErr, "Receive": pullErr, "Lag": lagErr, "Ping": p.Ping(ctx), "Ensure": p.Ensure(ctx, pubsub.Topology{}),
		"Run": p.Run(ctx), "Seek": p.Seek(ctx, topic, "g", pubsub.FromNow()), "DeliverTo": p.DeliverTo(ctx, topic, "g", m), "PublishAsync": <-asyncErr,
	} {
		e.wantCode(err, pubsub.ErrClosed, "%s after Close", what)
	}
	q := e.open()
	e.subscribe(q, s, l.handler(q, "g", nil))
	l.mustPublish(q, topic, l.messages(30, 3)...)
	if !l.await("g") {
		e.Errorf("another process did not get what came after the first one's Close: %s", l.progress("g"))
	}
	l.verify()
}

// goroutines returns the stacks of all goroutines, by their number: in a bubble of virtual time of those in it, which are the property's own
// also when other tests run at the same time.
func goroutines() map[string]string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	all, bubble := map[string]string{}, ""
	for g := range bytes.SplitSeq(buf, []byte("\n\n")) { // the caller's comes first
		head, stack, _ := strings.Cut(string(g), " [")
		state, _, _ := strings.Cut(stack, "]:")
		_, in, _ := strings.Cut(state, "synctest bubble ")
		if len(all) == 0 {
			bubble = in
		}
		if in == bubble {
			all[head] = stack
		}
	}
	return all
}

// inFile is where a line of a stack lies: reports are kept, and say nothing of the machine.
var inFile = regexp.MustCompile(`\n\t[^\n]*`)

func noLeak(e *env) {
	before := goroutines()
	left := func() (stacks []string) {
		for id, stack := range goroutines() {
			if _, ok := before[id]; !ok {
				stacks = append(stacks, stack)
			}
		}
		return stacks
	}
	for range 3 {
		p, topic, l := e.open(), e.topic("a"), e.ledger()
		e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", nil))
		e.subscribe(p, e.competing(topic, "g2"), func(context.Context, *pubsub.Delivery) error { return nil }).Pause()
		e.subscribe(p, e.sub(topic, pubsub.Broadcast), func(context.Context, *pubsub.Delivery) error { return nil })
		_, err := p.SubscribeBatch(e.Context(), e.sub(topic, "g4"), pubsub.Batch{}, func(context.Context, []*pubsub.Delivery) error { return nil })
		e.must(err, "subscribe to batches")
		pub, err := p.Publisher(pubsub.PublisherOptions{})
		e.must(err, "make a publisher")
		l.mustPublish(pub, topic, l.messages(30, 3)...)
		l.await("g")
		p.link.cut()
		_ = p.Close() // says that a session was cut
	}
	if !e.until(5*time.Second, func() bool { return len(left()) == 0 }) {
		stacks := left()
		e.Errorf("%d goroutines outlive Close; one of them: %s", len(stacks), inFile.ReplaceAllString(stacks[0], ""))
		e.until(2*time.Minute, func() bool { return len(left()) == 0 }) // none may stay behind in a bubble
	}
}

func drain(e *env) {
	topic, l := e.topic("a"), e.ledger().ordered("g")
	s := e.sub(topic, "g")
	s.Concurrency = 4
	pub := e.open()
	e.ensure(pub, s)
	l.mustPublish(pub, topic, l.messages(enough, 10)...)
	for n := 60; n < enough; n += 60 {
		p := e.open()
		c := e.subscribe(p, s, l.handler(p, "g", e.busy(3*time.Millisecond)))
		e.until(patience, func() bool { return l.handled("g") >= n })
		if err := c.Drain(e.Context()); err != nil {
			e.Errorf("Drain returned %v", err)
		}
		begun := len(l.calls("g"))
		time.Sleep(10 * time.Millisecond)
		if more := len(l.calls("g")) - begun; more > 0 {
			e.Errorf("%d handlers started after Drain had returned", more)
		}
	}
	p := e.open()
	e.subscribe(p, s, l.handler(p, "g", nil))
	l.await("g")
	l.verify()
}

func drainsRecordNothing(e *env) {
	topic, l := e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Concurrency, s.Retry.MaxAttempts = 4, 3
	pub := e.open()
	e.ensure(pub, s)
	for n := range 50 {
		l.mustPublish(pub, topic, l.messages(20, 5)...)
		p := e.open()
		ctx, cancel := context.WithCancel(e.Context())
		c, err := p.Subscribe(ctx, s, l.handler(p, "g", e.busy(2*time.Millisecond)))
		e.must(err, "subscribe")
		e.until(patience, func() bool { return l.handled("g") >= 10*n+5 })
		cancel() // drains
		<-c.Done()
		if err := c.Err(); err != nil {
			e.Errorf("a consumer whose context was cancelled ended with %v", err)
		}
	}
	p := e.open()
	e.subscribe(p, s, l.handler(p, "g", nil))
	l.await("g")
	for _, r := range l.calls("g") {
		if r.attempt != 1 {
			e.Errorf("message %s, which never failed, came with attempt %d", r.msg.ID, r.attempt)
		}
	}
	if n := len(e.dead(p, topic, "g")); n > 0 {
		e.Errorf("%d messages are in the dead letters, none of which has failed", n)
	}
	l.verify()
}

func liveOnReturn(e *env) {
	p, l := e.open(), e.ledger()
	for i := range 10 {
		topic, g := e.topic(fmt.Sprintf("t%d", i/2)), fmt.Sprintf("g%d", i)
		own := e.ledger()
		q := e.open()
		e.subscribe(q, e.sub(topic, g), own.handler(q, g, nil))
		own.mustPublish(p, topic, own.messages(5, 2)...)
		time.Sleep(100 * time.Millisecond)
		own.mustPublish(p, topic, own.messages(5, 2)...)
		own.await(g)
		own.verify(g)
		e.must(q.Close(), "close")
	}
	l.verify()
}

func vanishedTopic(e *env) {
	const grace = 30 * time.Second
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	c := e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(30, 3)...)
	l.await("g")
	begin := time.Now() // it vanishes before DeleteTopic returns
	e.must(e.h.DeleteTopic(e.Context(), topic), "delete the topic")
	if !e.closed(2*grace, c.Done()) {
		e.Errorf("the topic was deleted %v ago, and its consumer is %v", time.Since(begin), c.State().Phase)
	} else {
		e.wantCode(c.Err(), pubsub.ErrNotFound, "the end of a consumer whose topic was deleted")
		if took := time.Since(begin); took < grace {
			e.Errorf("the consumer of a topic that vanished ended after %v, the grace is %v", took, grace)
		}
	}
	if err := p.Publish(e.Context(), topic, l.message("")); !errors.Is(err, pubsub.ErrUnroutable) && !errors.Is(err, pubsub.ErrNotFound) {
		e.Errorf("publishing to a topic that was deleted returned %v: it was made again", err)
	}
	l.verify()
}

func unknownParameter(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(30, 3)...)
	l.await("g")
	open := func(name string) error {
		q := url.Values{}
		if name != "" {
			q.Set(name, "1")
		}
		if e.m != nil && e.m.parameters != nil {
			e.m.parameters(q)
		}
		b, err := e.h.OpenURL(e.Context(), q)
		if err == nil {
			e.Cleanup(func() { _ = b.Close() })
		}
		return err
	}
	e.must(open(""), "open by URL")
	for _, name := range []string{"surely_no_parameter", "Durability", "timeout\n"} {
		err := open(name)
		e.wantCode(err, pubsub.ErrInvalid, "opening with the parameter %q", name)
		if err != nil && !strings.Contains(err.Error(), strings.TrimSpace(name)) {
			e.Errorf("the error %q does not name the parameter %q", err, name)
		}
	}
	l.verify()
}
