package memory

import "time"

// ready is a heap of offsets: higher priority first, then the log's order.
type ready []readyAt

type readyAt struct {
	off      int64
	priority uint8
}

func (h ready) Len() int { return len(h) }
func (h ready) Less(i, j int) bool {
	return h[i].priority > h[j].priority || h[i].priority == h[j].priority && h[i].off < h[j].off
}
func (h ready) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *ready) Push(x any)   { *h = append(*h, x.(readyAt)) }
func (h *ready) Pop() any {
	x := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return x
}

// dues is a heap of offsets by the time for which they wait, then the log's order.
type dues []dueAt

type dueAt struct {
	at    time.Time
	off   int64
	retry bool // not published for later
}

func (h dues) Len() int { return len(h) }
func (h dues) Less(i, j int) bool {
	return h[i].at.Before(h[j].at) || h[i].at.Equal(h[j].at) && h[i].off < h[j].off
}
func (h dues) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *dues) Push(x any)   { *h = append(*h, x.(dueAt)) }
func (h *dues) Pop() any {
	x := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return x
}
