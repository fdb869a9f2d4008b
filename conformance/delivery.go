package conformance

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

func delivery() []Property {
	return []Property{
		{
			Name: "Delivery/ConfirmedIsReceived", Promises: []int{1}, Gate: keepsAnything(), run: confirmedIsReceived,
			Doc: "Every message whose publish returned nil is handled, with the key and payload that were published.",
		},
		{
			Name: "Delivery/BatchResults", Promises: []int{2}, run: batchResults,
			Doc: "A batch gives every message its own fate: those without an error are received, the others are not.",
		},
		{
			Name: "Delivery/RefusedIsReported", Promises: []int{2}, run: refusedIsReported,
			Doc: "A message that the broker refuses is an error with the broker's reason inside, and does not hold up others.",
		},
		{
			Name: "Delivery/Unroutable", Promises: []int{2}, run: unroutable,
			Doc: "Publishing to a topic that nobody provisioned is an error, and makes no topic.",
		},
		{
			Name: "Delivery/TopicIsolation", Promises: []int{1}, run: topicIsolation,
			Doc: "What is published to a topic is received from that topic only.",
		},
		{
			Name: "Delivery/BlackHole", Promises: []int{2}, run: blackHole, waits: 2 * time.Second,
			Doc: "Without an answer a publish ends as unconfirmed when its timeout is over, not as accepted, and not later.",
		},
		{
			Name: "Delivery/NotSentAgainBehindLater", Promises: []int{2, 3}, run: notSentAgainBehindLater,
			Doc: "A failed message behind an accepted later one of its key is reported as unconfirmed, not sent again.",
		},
		{
			Name: "Delivery/BuffersMayBeReused", Promises: []int{4}, run: buffersMayBeReused,
			Doc: "Once a publish is done its payload and headers may be overwritten without changing what is received.",
		},
		{
			Name: "Delivery/OpenBelowProcess", Promises: []int{1, 16}, run: openBelowProcess,
			Doc: "A broker that would not survive a crash is refused at Open, unless the user has asked for it by name.",
		},
		{
			Name: "Delivery/SurvivesCrash", Promises: []int{1}, Gate: survives(), run: survivesCrash, needs: restarts, alone: true,
			Doc: "What was confirmed before the broker's process was killed is received after it was started again.",
		},
		replicatedProperty(),
		{
			Name: "Delivery/DedupByID", Promises: []int{2}, Gate: deduplicates(), run: dedupByID,
			Doc: "With DedupByID a message that is published again under its ID is accepted and stored once.",
			refused: func(e *env) {
				_, err := e.open().Publisher(pubsub.PublisherOptions{DedupByID: true})
				e.wantUnsupported(err, "PublisherOptions.DedupByID")
			},
		},
	}
}

// enough is how many messages a property publishes where a fault may strike one in a hundred.
const enough = 300

func confirmedIsReceived(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	e.ensure(p, e.sub(topic, "g"))
	l.mustPublish(p, topic, l.messages(enough/2, 10)...) // before anyone listens
	s := e.sub(topic, "g")
	s.Concurrency = 4
	e.subscribe(p, s, l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(enough/2, 10)...)
	l.await("g")
	l.verify()
}

func survivesCrash(e *env) {
	const inFlight = 32
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.MaxInFlight = inFlight
	e.ensure(p, s)
	l.mustPublish(p, topic, l.messages(enough, 10)...)
	e.must(e.h.Kill(e.Context()), "kill the broker")
	if err := p.Ping(e.Context()); err == nil {
		e.Fatalf(setupPrefix + "the broker answers after Kill")
	}
	e.must(e.h.Start(e.Context()), "start the broker")
	e.subscribe(p, s, l.handler(p, "g", nil))
	l.await("g")
	l.verify()
}

func batchResults(e *env) {
	errOdd := errors.New("refused by the property")
	p := e.openWith(&pubsub.Options{Use: []pubsub.Middleware{{
		Name: "refuse some",
		Outgoing: func(_ context.Context, _ string, m *pubsub.Message) error {
			if m.Headers.Get("refuse") != "" {
				return errOdd
			}
			return nil
		},
	}}})
	topic, l := e.topic("a"), e.ledger()
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", nil))
	for range 3 {
		msgs := l.messages(enough/3, 7)
		for i := range msgs {
			if i > 20 && i%10 == 0 {
				msgs[i].Headers.Add("refuse", "yes")
			}
		}
		var notes []*sent
		for _, m := range msgs {
			notes = append(notes, l.note(m))
		}
		err := p.PublishBatch(e.Context(), topic, msgs)
		be, ok := errors.AsType[*pubsub.BatchError](err)
		if !ok || len(be.Errs) != len(msgs) {
			e.Fatalf("a batch of %d, some of them refused, returned %v; want a *BatchError with an entry for each", len(msgs), err)
		}
		for i, m := range msgs {
			l.tell(notes[i], be.Errs[i])
			if refused := m.Headers.Get("refuse") != ""; refused != (be.Errs[i] != nil) {
				e.Errorf("message %d of the batch, refused=%v, has error %v", i, refused, be.Errs[i])
			} else if refused {
				e.wantCode(be.Errs[i], pubsub.ErrRefused, "a message that middleware refused")
			}
		}
	}
	l.await("g")
	l.verify()
}

func refusedIsReported(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(30, 0)...)
	no := brokerError{pubsub.ErrDenied, true}
	p.link.faults(func(o pubsub.Out) action {
		if o.Msg.Headers.Get("refuse") != "" {
			return action{refuse, no}
		}
		return action{}
	})
	msgs := l.messages(100, 0)
	for i := range msgs {
		if i%10 == 5 {
			msgs[i].Headers.Add("refuse", "yes")
		}
	}
	for _, m := range msgs {
		s := l.note(m)
		err := p.Publish(e.Context(), topic, m)
		l.tell(s, err)
		if m.Headers.Get("refuse") == "" {
			e.must(err, "publish %s", m.ID)
			continue
		}
		e.wantCode(err, pubsub.ErrDenied, "publishing what the broker refuses")
		if !errors.Is(err, no) {
			e.Errorf("the broker's own error is not inside %v", err)
		}
	}
	l.await("g")
	l.verify()
}

func unroutable(e *env) {
	p, topic, l := e.open(), e.topic("known"), e.ledger()
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(30, 0)...)
	nobody := e.topic("nobody")
	for range 2 { // the first one must not have made it
		err := p.Publish(e.Context(), nobody, l.message(""))
		if !errors.Is(err, pubsub.ErrUnroutable) && !errors.Is(err, pubsub.ErrNotFound) {
			e.Errorf("publishing to a topic that nobody provisioned: got error %v, want %q or %q", err, pubsub.ErrUnroutable.Error(), pubsub.ErrNotFound.Error())
		}
	}
	l.await("g")
	l.verify()
}

func topicIsolation(e *env) {
	p := e.open()
	names := []string{"a", "ab", "a.b", "a-b"} // no one may be taken for another
	ledgers := make([]*ledger, len(names))
	for i, name := range names {
		ledgers[i] = e.ledger()
		e.subscribe(p, e.sub(e.topic(name), "g"), ledgers[i].handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
			if d.Topic != e.topic(name) {
				e.Errorf("a message of %q is said to come from %q", e.topic(name), d.Topic)
			}
			return nil
		}))
	}
	for range enough / 30 {
		for i, name := range names {
			ledgers[i].mustPublish(p, e.topic(name), ledgers[i].messages(30, 5)...)
		}
	}
	for _, l := range ledgers {
		l.await("g")
	}
	for _, l := range ledgers {
		l.verify()
	}
}

func blackHole(e *env) {
	const timeout = 2 * time.Second
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", nil))
	pub, err := p.Publisher(pubsub.PublisherOptions{Timeout: timeout})
	e.must(err, "make a publisher")
	l.mustPublish(pub, topic, l.messages(30, 3)...)
	p.link.faults(func(pubsub.Out) action { return action{kind: swallow} })
	took, ended := e.within(timeout+patience, func() {
		l.publish(pub, topic, l.messages(20, 3)...)
	})
	switch {
	case !ended:
		e.Fatalf("a publish with a timeout of %v has not ended after %v", timeout, took)
	case took > timeout+time.Second:
		e.Errorf("a publish with a timeout of %v ended after %v", timeout, took)
	}
	for _, s := range l.all()[30:] {
		if !errors.Is(s.err, pubsub.ErrUnconfirmed) {
			e.Errorf("a publish that never had an answer returned %v, want %q", s.err, pubsub.ErrUnconfirmed.Error())
		}
	}
	p.link.faults(nil)
	l.mustPublish(p, topic, l.messages(3, 3)...) // it works again
	l.await("g")
	l.verify()
}

func notSentAgainBehindLater(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger().ordered("g")
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(30, 3)...)
	lost, later, end := l.message("key-0"), l.message("key-0"), l.message("other")
	p.link.faults(func(o pubsub.Out) action {
		switch o.Msg.ID {
		case lost.ID:
			return action{kind: swallow}
		case end.ID: // by now later has its answer
			p.link.faults(nil)
			return action{kind: cutBefore}
		}
		return action{}
	})
	ids := []string{lost.ID, later.ID}
	answered := make(chan struct{})
	var wg sync.WaitGroup
	send := func(m pubsub.Message, then func()) {
		s := l.note(m)
		wg.Add(1)
		p.PublishAsync(e.Context(), topic, m, func(_ pubsub.Receipt, err error) {
			l.tell(s, err)
			then()
			wg.Done()
		})
	}
	send(lost, func() {})
	send(later, func() { close(answered) })
	if !e.closed(patience, answered) {
		e.Fatalf("%s has no answer", later.ID)
	}
	send(end, func() {})
	wg.Wait()
	if err := l.fate(lost.ID); !errors.Is(err, pubsub.ErrUnconfirmed) {
		e.Errorf("a message that may be lost, behind which a later one of its key was accepted, returned %v; want %q", err, pubsub.ErrUnconfirmed.Error())
	}
	l.await("g")
	l.mustPublish(p, topic, l.message("key-0")) // whatever came of the lost one would be before this
	l.await("g")
	var got []string
	for _, r := range l.calls("g", ids...) {
		got = append(got, r.msg.ID)
	}
	if slices.Contains(got, lost.ID) {
		e.Errorf("received %v of %v: the one that failed was sent again behind the later one", got, ids)
	}
	l.verify()
}

func buffersMayBeReused(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
		if got := d.Headers.Get("id"); got != d.ID {
			e.Errorf("message %s came with the header of %q", d.ID, got)
		}
		return nil
	}))
	const rounds = 10
	for range rounds {
		msgs := l.messages(enough/rounds, 5)
		var wg sync.WaitGroup
		for _, m := range msgs {
			payload := []byte("payload of " + m.ID)
			headers := pubsub.Headers{{Name: "id", Value: m.ID}}
			m.Payload, m.Headers = payload, headers
			s := l.note(m)
			wg.Add(1)
			p.PublishAsync(e.Context(), topic, m, func(_ pubsub.Receipt, err error) {
				l.tell(s, err)
				clear(payload)
				headers[0] = pubsub.Header{Name: "overwritten"}
				wg.Done()
			})
		}
		wg.Wait()
	}
	l.await("g")
	l.verify()
}
