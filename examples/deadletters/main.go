// Command deadletters is what an operator does after an outage: looks at what billing has given up, counts it by its cause, and sends
// again what the outage has cost, at a bounded rate. The replay is interrupted on the way, and another one goes on from its journal.
//
//	go run ./examples/deadletters
//	BROKER_URL=nats://127.0.0.1:4222 go run ./examples/deadletters
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/pubsub"
)

func main() {
	if err := run(context.Background(), cmp.Or(os.Getenv("BROKER_URL"), "mem://")); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, url string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	b, err := brokers.Open(ctx, url, &pubsub.Options{Require: pubsub.Capabilities{Redelivery: true}}) // there are no dead letters without
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	dir, err := os.MkdirTemp("", "replay")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	topic := fmt.Sprintf("orders-%d", time.Now().UnixNano()) // of this run alone: nothing of an earlier one is among its dead letters
	svc, err := giveUp(ctx, b, topic)
	if err != nil {
		return err
	}
	q := dlq.Open(b, topic, "billing")
	if err := look(ctx, q); err != nil {
		return err
	}
	svc.gateway.answers.Store(true)
	journal := filepath.Join(dir, "journal")
	if err := interrupted(ctx, q, journal); err != nil {
		return err
	}
	if err := resumed(ctx, dlq.Open(b, topic, "billing"), journal); err != nil {
		return err
	}
	billed := map[string]bool{}
	for len(billed) < late {
		select {
		case id := <-svc.billed:
			billed[id] = true
		case <-ctx.Done():
			return fmt.Errorf("%d of %d were billed: %w", len(billed), late, ctx.Err())
		}
	}
	fmt.Println(len(billed), "orders billed that the outage had cost")
	return nil
}

// look takes nothing away and counts nothing as an attempt.
func look(ctx context.Context, q *dlq.Queue) error {
	groups, err := q.Groups(ctx, dlq.Filter{})
	if err != nil {
		return err
	}
	for _, g := range groups {
		fmt.Printf("%4d  %-12s  %-8s  %s\n", g.Count, g.Reason, g.Category, g.Error)
	}
	for rec, err := range q.List(ctx, dlq.Filter{Key: "ann", Since: time.Now().Add(-24 * time.Hour)}) {
		if err != nil {
			return err
		}
		fmt.Printf("%s of %s: %s after %d attempts, %s\n", rec.Message.ID, rec.Message.Key, rec.Reason, rec.Attempts, rec.Error)
	}
	return nil
}

// interrupted plans a replay, looks at the plan, and is ended in the middle of it: by a Ctrl-C, or a machine that goes away.
func interrupted(ctx context.Context, q *dlq.Queue, journal string) error {
	f, err := os.OpenFile(journal, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	plan, err := q.Plan(ctx, dlq.Filter{Category: outage}, dlq.Replay{
		Rate:    200, // a second: the gateway has only just come back
		Journal: f,
		Progress: func(done, _ int) {
			if done >= 10 { // several may be confirmed at once
				stop()
			}
		},
	})
	if err != nil {
		return errors.Join(err, f.Close())
	}
	fmt.Println("planned:", plan.Count)
	rep, err := plan.Run(running)
	fmt.Println("interrupted on the way:", errors.Is(err, pubsub.ErrCanceled) && rep.Replayed >= 10 && rep.Replayed < rep.Total)
	if errors.Is(err, pubsub.ErrCanceled) {
		err = nil // it was to be
	}
	return errors.Join(err, f.Close())
}

// resumed is another process, which has the journal alone.
func resumed(ctx context.Context, q *dlq.Queue, journal string) error {
	f, err := os.OpenFile(journal, os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	plan, err := q.Resume(ctx, f, dlq.Replay{Rate: 200, Journal: f})
	if err != nil {
		return errors.Join(err, f.Close())
	}
	plan.SetRate(1000) // it holds: also while Run runs, from another goroutine
	rep, err := plan.Run(ctx)
	fmt.Printf("resumed: %d of %d replayed, %d failed\n", rep.Replayed, rep.Total, rep.Failed)
	return errors.Join(err, f.Close())
}
