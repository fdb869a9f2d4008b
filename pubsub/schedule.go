package pubsub

import (
	"container/heap"
	"context"
	"hash/maphash"
	"time"
)

// An item is one message that the consumer holds. Items are used again, for another message of the same feed: what users
// get to see is the Delivery, which never is.
type item struct {
	feed *feed
	use  uint64 // counts its messages: tells a Delivery of an earlier one
	held
}

// held is what an item knows of its message.
type held struct {
	d       *Delivery // what the handler gets; a new one for each attempt
	rec     Record
	lane    *lane
	key     *keyQueue // what it blocks, or waits behind; nil = nothing
	next    *item     // behind it in key
	prev    *item     // all that a feed holds, oldest first
	after   *item
	letter  *letter // that is on its way, with BlockKey
	run     *worker // while its handler runs
	state   itemState
	job     task
	replay  bool  // it comes from a dead letter
	sleeps  bool  // in a tier, until it leaves that
	lost    bool  // its lease is over: settle nothing
	shown   bool  // a worker has had its Delivery
	failed  int32 // recorded failures
	size    int64
	got     time.Time               // when it was received
	first   time.Time               // when its handler was first called; zero = not yet
	due     time.Time               // while it waits
	until   time.Time               // of a moved retry: its handler is not called before; zero = it may be
	ends    int64                   // its TTL, in Unix nanoseconds; 0 = it has none
	tries   int                     // to move it
	shed    uint8                   // steps by which its dead letter tells less, because that was too large
	pointed bool                    // there is a dead letter that tells where it is
	index   int                     // in the heap of those that wait
	why     verdict                 // of the last failure
	past    *past                   // of all that are known
	cancel  context.CancelCauseFunc // of a lease that a Receive loop has out
	co      *coroutine              // of its middleware, in a batch or a Receive loop
	pulled  leaseState
}

type itemState uint8

const (
	itemReady   itemState = iota // in the ready queue
	itemParked                   // behind another item of its key
	itemRunning                  // in a handler
	itemWaiting                  // for its time
	itemMoving                   // a copy is on its way to another place
	itemGone                     // settled, handed back or lost: not held any more
)

// A task is what a worker does with an item.
type task uint8

const (
	taskHandle     task = iota
	taskDeadLetter      // store it in the dead letters, without another call of the handler
	taskQuarantine      // move it to the quarantine
	taskExpire          // its TTL is over
	taskResolve         // tell that its handler has succeeded: it is a replay
)

// A keyQueue holds what must not run at the same time: head runs, waits or is ready, the others follow it.
type keyQueue struct {
	hash       uint64
	head, tail *item
	n          int // items in it
	waits      bool
}

func (c *Consumer) keyOf(it *item) (uint64, bool) {
	switch c.sub.Order {
	case OrderNone:
		return 0, false
	case OrderStrict:
		return it.feed.salt ^ uint64(uint32(it.rec.Token.Lane)), true
	}
	if it.rec.Msg.Key == "" {
		return 0, false
	}
	// two keys with one hash only wait for each other
	return maphash.String(keySeed, it.rec.Msg.Key) ^ it.feed.salt ^ uint64(uint32(it.rec.Token.Lane))*0x9e3779b97f4a7c15, true
}

var keySeed = maphash.MakeSeed()

// enqueue puts a new item in its place. mu is held.
func (c *Consumer) enqueue(it *item) {
	hash, keyed := c.keyOf(it)
	if !keyed {
		c.ready.push(it)
		return
	}
	q := c.keys[hash]
	if q == nil {
		q = c.newKey(hash)
		q.head, q.tail, q.n = it, it, 1
		it.key = q
		c.ready.push(it)
		return
	}
	it.key, it.state = q, itemParked
	q.tail.next, q.tail = it, it
	q.n++
	if q.waits {
		c.parked++
	}
}

func (c *Consumer) newKey(hash uint64) *keyQueue {
	var q *keyQueue
	if n := len(c.freeKeys); n > 0 {
		q, c.freeKeys = c.freeKeys[n-1], c.freeKeys[:n-1]
		*q = keyQueue{hash: hash}
	} else {
		q = &keyQueue{hash: hash}
	}
	c.keys[hash] = q
	return q
}

// releaseKey lets the next of the item's key go. Items that are gone are passed over. mu is held.
func (c *Consumer) releaseKey(it *item) {
	q := it.key
	if q == nil || q.head != it {
		return
	}
	it.key = nil
	c.setWaits(q, false)
	q.n--
	next := it.next
	it.next = nil
	for next != nil && next.state == itemGone {
		next, next.key = next.next, nil
		q.n--
	}
	if next == nil {
		delete(c.keys, q.hash)
		q.head, q.tail = nil, nil
		if len(c.freeKeys) < 1024 {
			c.freeKeys = append(c.freeKeys, q)
		}
		return
	}
	q.head = next
	next.state = itemReady
	c.ready.push(next)
	c.wakeWorkers()
}

// setWaits says whether the head of q waits for its time: then those behind it count as parked. mu is held.
func (c *Consumer) setWaits(q *keyQueue, waits bool) {
	if q.waits == waits {
		return
	}
	q.waits = waits
	n := 0
	for it := q.head.next; it != nil; it = it.next {
		if it.state == itemParked {
			n++
		}
	}
	if waits {
		c.parked += n
	} else {
		c.parked -= n
	}
}

// next takes an item to work on, nil if there is none. mu is held.
func (c *Consumer) next(now time.Time) *item {
	for c.ready.n > 0 {
		if c.draining || c.isPaused() {
			return nil
		}
		it := c.ready.pop()
		if it.state != itemReady { // gone, or moved away meanwhile
			continue
		}
		if it.leaseOver(now) {
			c.loseLease(it)
			continue
		}
		if it.shown {
			it.newDelivery()
			it.co = nil
		}
		if c.blocks != nil {
			c.follow(it)
		}
		it.state, it.shown = itemRunning, true
		it.lane.running++
		c.running++
		if c.ready.n == 0 {
			it.feed.signalRoom()
		}
		return it
	}
	return nil
}

// takenAway says whether the broker gives the message to someone, or to us again. Where nothing is redelivered it stays ours, session or not.
func (it *item) takenAway() bool {
	return it.lost || it.feed.src == nil && it.feed.c.b.caps.Redelivery
}

func (it *item) leaseOver(now time.Time) bool {
	return !it.rec.LeaseUntil.IsZero() && !now.Before(it.rec.LeaseUntil)
}

// wakeWorkers makes sure that someone works on what is ready. A woken worker wakes the next one, if there is more. mu is held.
func (c *Consumer) wakeWorkers() {
	if c.ready.n == 0 {
		return
	}
	if c.idle > 0 {
		c.cond.Signal()
		return
	}
	c.spawn()
}

// drop takes an item out of the held ones; what it blocks goes on. mu is held.
func (c *Consumer) drop(it *item) {
	if it.state == itemGone {
		return
	}
	switch it.state {
	case itemParked:
		if it.key.waits {
			c.parked--
		}
	case itemWaiting:
		c.stopWaiting(it)
	}
	it.state = itemGone
	c.pasts.keep(it)
	it.feed.unhold(it)
	c.releaseKey(it) // nothing if it is not the head: then its predecessor passes over it
}

// wait lets an item wait for its time. mu is held.
func (c *Consumer) wait(it *item, d time.Duration) {
	it.state = itemWaiting
	it.due = time.Now().Add(d)
	heap.Push(&c.waiting, it)
	if it.feed.place.Tier > 0 {
		c.asleep++
	}
	if it.key != nil {
		if c.sub.Order == OrderByKeyLoose {
			c.releaseKey(it)
		} else {
			c.setWaits(it.key, true)
		}
	}
	c.alarm.set(it.due)
}

func (c *Consumer) stopWaiting(it *item) {
	heap.Remove(&c.waiting, it.index)
	if it.feed.place.Tier > 0 {
		c.asleep--
	}
	if it.sleeps {
		it.sleeps = false
		it.feed.sleeping--
		it.feed.signalRoom()
	}
	if it.key != nil {
		c.setWaits(it.key, false)
	}
}

// ring is called when something that waits is due.
func (c *Consumer) ring() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.alarm.at = time.Time{}
	now := time.Now()
	for len(c.waiting) > 0 {
		it := c.waiting[0]
		if it.due.After(now) {
			c.alarm.set(it.due)
			break
		}
		c.stopWaiting(it)
		it.state = itemReady
		if !it.until.IsZero() {
			c.onward(it)
			continue
		}
		if it.key == nil { // loosely ordered: it let its key go, and gets in line again
			c.enqueue(it)
			continue
		}
		c.ready.push(it)
	}
	if !c.until.IsZero() && c.until.After(now) {
		c.alarm.set(c.until)
	}
	c.isPaused() // forgets a pause that is over
	c.unpark()
}

// parking counts what waits for a retry or behind one. What waits in a tier has a bound of its own. mu is held.
func (c *Consumer) parking() int { return c.parked + len(c.waiting) - c.asleep }

func (c *Consumer) parkedFull() bool {
	n := c.parking()
	return n > 0 && n >= c.sub.MaxParked && c.sub.OnParkedFull == ParkBlock
}

// A queue is a ring of items.
type queue struct {
	ring    []*item
	head, n int
}

func (q *queue) push(it *item) {
	if q.n == len(q.ring) {
		ring := make([]*item, max(16, 2*len(q.ring)))
		for i := range q.n {
			ring[i] = q.ring[(q.head+i)&(len(q.ring)-1)]
		}
		q.ring, q.head = ring, 0
	}
	q.ring[(q.head+q.n)&(len(q.ring)-1)] = it
	q.n++
}

// pushFront puts an item before all others: it was taken out and came back.
func (q *queue) pushFront(it *item) {
	q.push(it) // makes room
	q.head = (q.head - 1 + len(q.ring)) & (len(q.ring) - 1)
	q.ring[(q.head+q.n)&(len(q.ring)-1)] = nil
	q.ring[q.head] = it
}

func (q *queue) pop() *item {
	it := q.ring[q.head]
	q.ring[q.head] = nil
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.n--
	return it
}

// dueHeap orders what waits by its time.
type dueHeap []*item

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }
func (h *dueHeap) Push(x any)        { it := x.(*item); it.index = len(*h); *h = append(*h, it) }
func (h *dueHeap) Pop() any {
	old := *h
	n := len(old) - 1
	it := old[n]
	old[n], *h = nil, old[:n]
	return it
}
