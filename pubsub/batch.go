package pubsub

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Batch bounds what a BatchHandler gets in one call. Within an order by key a batch has at most one message of a key, so that
// the next one is not handled before this one is settled; OrderNone has no such bound.
type Batch struct {
	Max  int           // messages; 0 = 100
	Wait time.Duration // for the batch to fill, from its first message; 0 = 20ms
}

type batching struct {
	Batch
	handler BatchHandler
}

// SubscribeBatch delivers several messages per call, see Subscriber. Each message passes the middleware by itself. A MaxInFlight of 0 is at least two
// batches for each handler; one that is less than Batch.Max is an ErrInvalid.
func (b *Broker) SubscribeBatch(ctx context.Context, sub Subscription, batch Batch, h BatchHandler) (*Consumer, error) {
	if h == nil {
		return nil, b.nilHandler(sub)
	}
	if batch.Max < 0 || batch.Wait < 0 {
		return nil, invalidOn(b, "subscribe", sub.Topic, fmt.Errorf("Batch %+v has a negative bound", batch), "")
	}
	if batch.Max == 0 {
		batch.Max = 100
	}
	if batch.Wait == 0 {
		batch.Wait = 20 * time.Millisecond
	}
	if sub.MaxInFlight == 0 {
		sub.MaxInFlight = max(defaultInFlight, 4*max(sub.Concurrency, 1), 2*batch.Max*max(sub.Concurrency, 1))
	} else if sub.MaxInFlight < batch.Max {
		return nil, invalidOn(b, "subscribe", sub.Topic, fmt.Errorf("Batch.Max of %d is more than MaxInFlight of %d", batch.Max, sub.MaxInFlight), "")
	}
	c, err := b.newConsumer(ctx, sub, callUser)
	if err != nil {
		return nil, err
	}
	c.batch = &batching{batch, h}
	return c, c.start(ctx)
}

// runBatches collects batches and calls the handler.
func (w *worker) runBatches() {
	c := w.c
	defer w.leave()
	c.mu.Lock()
	for it := w.take(); it != nil; it = w.take() {
		items := w.collect(it)
		w.batch = items
		for _, it := range slices.Backward(items) { // the first is the one that the worker is known by
			w.begin(it)
		}
		c.mu.Unlock()
		verdicts := w.handleBatch(items)
		w.now = c.now()
		c.mu.Lock()
		w.finish()
		for i, it := range items {
			c.conclude(it, verdicts[i], w.now)
		}
		w.now = c.now()
	}
	c.mu.Unlock()
}

// collect waits until the batch is full or its time is over. mu is held.
func (w *worker) collect(it *item) []*item {
	c := w.c
	items := append(make([]*item, 0, min(c.batch.Max, c.ready.n+1)), it)
	deadline := w.now.Add(c.batch.Wait)
	var timer *time.Timer
	for len(items) < c.batch.Max && !c.draining {
		if it := c.next(w.now); it != nil {
			items = append(items, it)
			continue
		}
		w.now = c.now()
		left := deadline.Sub(w.now)
		if left <= 0 {
			break
		}
		if timer == nil {
			timer = time.AfterFunc(left, func() {
				c.mu.Lock()
				c.cond.Broadcast()
				c.mu.Unlock()
			})
			defer timer.Stop()
		}
		c.idle++
		c.cond.Wait()
		c.idle--
		w.now = c.now()
	}
	c.wakeWorkers() // for what did not fit
	return items
}

// handleBatch runs each message's middleware down to the handler, calls it once with those that got there, and lets the middleware return.
func (w *worker) handleBatch(items []*item) []verdict {
	c := w.c
	verdicts := make([]verdict, len(items))
	var batch []*Delivery
	var at []int
	for i, it := range items {
		if it.job != taskHandle {
			verdicts[i] = c.work(w.ctx, it)
			continue
		}
		c.delivered(it)
		if newCoroutine(c.chain).start(w.ctx, it.d) {
			batch, at = append(batch, it.d), append(at, i)
		} else {
			verdicts[i] = c.decide(w.ctx, it, it.co.err)
		}
	}
	if len(batch) == 0 {
		return verdicts
	}
	start := time.Now()
	errs := batchErrors(c.callBatch(w.ctx, batch), len(batch))
	took := time.Since(start)
	for j, i := range at {
		v := c.decide(w.ctx, items[i], items[i].co.finish(errs[j]))
		v.took = took
		verdicts[i] = v
	}
	return verdicts
}

func (c *Consumer) callBatch(ctx context.Context, batch []*Delivery) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = newPanic(r)
		}
	}()
	return c.batch.handler(ctx, batch)
}
