package main

import (
	"context"
	"fmt"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/pubsub"
)

// replay gives a group again what only the gateway has failed in this run, and says what does not add up. The dead letters stay where they are.
func (s *session) replay(ctx context.Context, b *pubsub.Broker, id string, g group) (problems []string, err error) {
	queue, which := dlq.Open(b, s.topic, g.sub.Group), ofRun(id)
	which.Category = gatewayFailed
	books := newLedger(g.sub.Group) // of the replay: what is in it is to be handled
	for rec, err := range queue.List(ctx, which) {
		if err != nil {
			return nil, err
		}
		books.sending(Order{ID: rec.Message.ID, Customer: rec.Message.Key})
		books.sent(rec.Message.ID, nil)
	}
	if len(books.confirmed) == 0 {
		return nil, nil
	}
	books.publishedAll()

	start := time.Now()
	c, err := g.work(ctx, b, id, books, books.groups[0])
	if err != nil {
		return nil, err
	}
	report, err := queue.Replay(ctx, which, dlq.Replay{})
	if err != nil {
		return nil, err
	}
	timedOut := time.NewTimer(s.wait)
	defer timedOut.Stop()
	select {
	case <-books.done:
	case <-timedOut.C:
	case <-ctx.Done():
		return nil, errInterrupted
	}
	took := time.Since(start)
	if err := c.Drain(ctx); err != nil {
		return nil, err
	}
	handled := len(books.groups[0].handled) // nobody works any more
	fmt.Fprintf(s.out, "\nreplayed   %d of %s, where the gateway had failed and now answers: %d handled, in %v\n",
		report.Replayed, g.sub.Group, handled, round(took))
	for _, p := range books.problems(nil) {
		problems = append(problems, "replay: "+p)
	}
	return problems, nil
}
