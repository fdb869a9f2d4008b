package dlq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// declined is a broker with three orders that billing has given up, and one that it will bill when it comes again.
func declined() (b *pubsub.Broker, billed <-chan string) {
	b = memory.New(nil)
	ctx := context.Background()
	gone := make(chan struct{}, 4)
	done := make(chan string, 4)
	sub := pubsub.Subscription{
		Topic: "orders", Group: "billing",
		Retry:      pubsub.Policy{MaxAttempts: 1},
		Rules:      []pubsub.Rule{{Category: "timeout", When: func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }, Retry: pubsub.Policy{MaxAttempts: 1}}},
		DeadLetter: pubsub.DeadLetter{OnDeadLetter: func(*pubsub.Delivery, error) { gone <- struct{}{} }},
	}
	_, err := b.Subscribe(ctx, sub, func(_ context.Context, d *pubsub.Delivery) error {
		replays := d.Headers.Get("omnibus-replays")
		switch {
		case replays != "":
			done <- fmt.Sprintf("%s in replay %s", d.Payload, replays)
			return nil
		case d.Type == "slow":
			return context.DeadlineExceeded
		}
		return pubsub.Permanent(errDeclined)
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range []pubsub.Message{{Payload: []byte("tea")}, {Payload: []byte("milk"), Type: "slow"}, {Payload: []byte("rice")}} {
		if err := b.Publish(ctx, "orders", m); err != nil {
			log.Fatal(err)
		}
		<-gone
	}
	return b, done
}

// What failed, and why.
func ExampleQueue_Groups() {
	b, _ := declined()
	defer b.Close()
	groups, err := dlq.Open(b, "orders", "billing").Groups(context.Background(), dlq.Filter{})
	if err != nil {
		log.Fatal(err)
	}
	for _, g := range groups {
		fmt.Printf("%d %s: %s, such as %s\n", g.Count, g.Reason, g.Error, g.Sample.Message.Payload)
	}
	// Output:
	// 2 permanent: card declined, such as rice
	// 1 max-attempts: context deadline exceeded, such as milk
}

func ExampleQueue_List() {
	b, _ := declined()
	defer b.Close()
	recently := dlq.Filter{Reason: "permanent", Since: time.Now().Add(-24 * time.Hour)}
	for r, err := range dlq.Open(b, "orders", "billing").List(context.Background(), recently) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s in attempt %d: %s\n", r.Message.Payload, r.Attempts, r.Error)
	}
	// Output:
	// tea in attempt 1: card declined
	// rice in attempt 1: card declined
}

// A plan is looked at before it runs.
func ExampleQueue_Plan() {
	b, billed := declined()
	defer b.Close()
	ctx := context.Background()
	plan, err := dlq.Open(b, "orders", "billing").Plan(ctx, dlq.Filter{Category: "timeout"}, dlq.Replay{Rate: 100})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d message, such as %s\n", plan.Count, plan.Sample[0].Message.Payload)
	rep, err := plan.Run(ctx)
	if err != nil {
		log.Fatal(err) // run the plan again: nothing is lost
	}
	fmt.Printf("%d replayed, %d skipped, %d failed\n", rep.Replayed, rep.Skipped, rep.Failed)
	fmt.Println("billed", <-billed)
	// Output:
	// 1 message, such as milk
	// 1 replayed, 0 skipped, 0 failed
	// billed milk in replay 1
}

// Replayed is not solved: what the handler has succeeded on is resolved, and nobody wants the rest any more.
func ExampleQueue_Discard() {
	b, billed := declined()
	defer b.Close()
	ctx := context.Background()
	q := dlq.Open(b, "orders", "billing")
	if _, err := q.Replay(ctx, dlq.Filter{Category: "timeout"}, dlq.Replay{Note: dlq.Note{By: "ann", Why: "the bank is back"}}); err != nil {
		log.Fatal(err)
	}
	<-billed
	for resolved := false; !resolved; { // a moment later
		for r, err := range q.List(ctx, dlq.Filter{States: []dlq.State{dlq.StateResolved}}) {
			if err != nil {
				log.Fatal(err)
			}
			fmt.Println(r.State, string(r.Message.Payload))
			resolved = true
		}
	}
	n, err := q.Discard(ctx, dlq.Filter{}, dlq.Note{By: "ann", Why: "declined is declined"})
	fmt.Println(n, "discarded", err)
	for e, err := range q.Audit(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		if e.Operation == dlq.OpStart || e.Operation == dlq.OpDiscard {
			fmt.Printf("%s: %s, %s\n", e.Operation, e.By, e.Why)
		}
	}
	// Output:
	// resolved milk
	// 2 discarded <nil>
	// replay-started: ann, the bank is back
	// discard: ann, declined is declined
}

// A replay with a journal goes on in another process. Here it is kept in memory; a file opened with os.O_APPEND outlives its process.
func ExampleQueue_Resume() {
	b, billed := declined()
	defer b.Close()
	ctx, stop := context.WithCancel(context.Background())
	q := dlq.Open(b, "orders", "billing")
	var journal bytes.Buffer
	plan, err := q.Plan(ctx, dlq.Filter{}, dlq.Replay{
		Rate: 1, Journal: &journal,
		Progress: func(done, total int) { stop() }, // the first one is confirmed: enough
	})
	if err != nil {
		log.Fatal(err)
	}
	rep, err := plan.Run(ctx)
	fmt.Println(rep.Replayed, "of", rep.Total, errors.Is(err, pubsub.ErrCanceled))

	ctx = context.Background() // of the next process
	if plan, err = q.Resume(ctx, bytes.NewReader(journal.Bytes()), dlq.Replay{Journal: &journal}); err != nil {
		log.Fatal(err)
	}
	if rep, err = plan.Run(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(rep.Replayed, "of", rep.Total)
	for range 3 {
		fmt.Println("billed", <-billed)
	}
	// Output:
	// 1 of 3 true
	// 3 of 3
	// billed tea in replay 1
	// billed milk in replay 1
	// billed rice in replay 1
}

// Timeouts are somebody else's work than declined cards.
func ExampleRoute() {
	sub := pubsub.Subscription{
		Topic: "orders", Group: "billing",
		Rules:      []pubsub.Rule{{Category: "timeout", When: func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }}},
		DeadLetter: pubsub.DeadLetter{Route: dlq.Route(map[string]string{"timeout": "dead.timeouts"})},
	}
	b := memory.New(nil)
	defer b.Close()
	if err := b.Ensure(context.Background(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "dead.timeouts"}}, Groups: []pubsub.Subscription{sub}}); err != nil {
		log.Fatal(err)
	}
	for r, err := range dlq.OpenTopic(b, "dead.timeouts").List(context.Background(), dlq.Filter{}) {
		fmt.Println(r.ID, err) // none so far
	}
	// Output:
}

// The gateway is back: what would be retried in an hour is retried now.
func ExampleQueue_RetryNow() {
	b := memory.New(nil)
	defer b.Close()
	ctx := context.Background()
	failed, done := make(chan struct{}), make(chan string)
	sub := pubsub.Subscription{Topic: "orders", Group: "billing", Order: pubsub.OrderNone, Retry: pubsub.Policy{Delays: []time.Duration{time.Hour}}}
	_, err := b.Subscribe(ctx, sub, func(_ context.Context, d *pubsub.Delivery) error {
		if d.Attempt == 1 {
			defer close(failed)
			return errDeclined
		}
		done <- fmt.Sprintf("%s in attempt %d", d.Payload, d.Attempt)
		return nil
	})
	if err == nil {
		err = b.Publish(ctx, "orders", pubsub.Message{Payload: []byte("tea")})
	}
	if err != nil {
		log.Fatal(err)
	}
	<-failed
	q := dlq.Open(b, "orders", "billing")
	for told := 0; told == 0; { // until it is back at the broker
		r, err := q.RetryNow(ctx, dlq.WaitingFilter{}, dlq.Note{Why: "the gateway is back"})
		if err != nil {
			log.Fatal(err)
		}
		told = r.Done
	}
	fmt.Println(<-done)
	// Output: tea in attempt 2
}
