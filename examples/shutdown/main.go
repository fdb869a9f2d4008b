// Command shutdown stops a service in the middle of its work, as a deployment does with SIGTERM: the handler that runs finishes and is
// acked, what was only fetched goes back, and the next process does the rest. Nothing is lost, done twice or counted as a failure.
//
//	go run ./examples/shutdown
//	BROKER_URL=nats://127.0.0.1:4222 go run ./examples/shutdown
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/pubsub"
)

func main() {
	if err := run(context.Background(), cmp.Or(os.Getenv("BROKER_URL"), "mem://")); err != nil {
		log.Fatal(err)
	}
}

const jobs = 100

func run(ctx context.Context, url string) (err error) {
	b, err := brokers.Open(ctx, url, &pubsub.Options{
		DrainTimeout: 20 * time.Second, // of the 30 s that Kubernetes gives: what handlers may take when it is over
	})
	if err != nil {
		return err
	}
	// Publishers are closed last: handlers can publish until they have ended.
	defer func() { err = errors.Join(err, b.Close()) }()

	renders := pubsub.Subscription{Topic: "jobs", Group: "render", Concurrency: 4}
	if err := b.Ensure(ctx, pubsub.Topology{Groups: []pubsub.Subscription{renders}}); err != nil {
		return err
	}
	msgs := make([]pubsub.Message, jobs)
	for i := range msgs {
		msgs[i].ID = fmt.Sprint("job ", i+1)
	}
	if err := b.PublishBatch(ctx, "jobs", msgs); err != nil {
		return err
	}

	w := &work{attempts: map[string][]int{}}
	if err := w.first(ctx, b, renders); err != nil {
		return err
	}
	fmt.Printf("stopped with %d handlers running, %d of them finished\n", renders.Concurrency, w.finished.Load())
	fmt.Println("left for the next process:", w.count() < jobs)

	if err := w.second(ctx, b, renders); err != nil {
		return err
	}
	once := 0
	for _, attempts := range w.attempts {
		if len(attempts) == 1 && attempts[0] == 1 {
			once++
		}
	}
	fmt.Printf("done in the end: %d of %d, each once and in its first attempt: %d\n", w.count(), jobs, once)
	return nil
}

// work is what both processes have done.
type work struct {
	finished atomic.Int32 // handlers that ran when the signal came, and were not cut short

	mu       sync.Mutex
	attempts map[string][]int // by job
}

func (w *work) done(d *pubsub.Delivery) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.attempts[d.ID] = append(w.attempts[d.ID], d.Attempt)
}

func (w *work) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.attempts)
}

// first is the process that is stopped. A real service is this function without the signal that it sends to itself.
func (w *work) first(ctx context.Context, b *pubsub.Broker, sub pubsub.Subscription) error {
	running, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	var started atomic.Int32
	render := func(ctx context.Context, d *pubsub.Delivery) error {
		if int(started.Add(1)) == sub.Concurrency {
			if err := terminate(); err != nil {
				return err
			}
		}
		<-running.Done() // the service is stopping; the ctx of its handlers lives on until DrainTimeout is over:
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond): // the rest of the job
		}
		w.finished.Add(1)
		w.done(d)
		return nil
	}
	if _, err := b.Subscribe(running, sub, render); err != nil {
		return err
	}
	return b.Run(running) // until the signal; then it waits for what runs
}

// terminate sends this process what a deployment would.
func terminate() error {
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	return self.Signal(syscall.SIGTERM)
}

// second is the process that is started after it.
func (w *work) second(ctx context.Context, b *pubsub.Broker, sub pubsub.Subscription) error {
	running, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	render := func(_ context.Context, d *pubsub.Delivery) error {
		w.done(d)
		if w.count() == jobs {
			stop()
		}
		return nil
	}
	if _, err := b.Subscribe(running, sub, render); err != nil {
		return err
	}
	return b.Run(running)
}
