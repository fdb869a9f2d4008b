package bench

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// Op is what a shape does.
type Op string

const (
	Publish   Op = "publish"   // send, until everything is confirmed
	Consumed  Op = "consume"   // receive what was stored before, until nothing is pending
	Latency   Op = "latency"   // from the call that publishes to the handler, at a fixed rate
	RoundTrip Op = "roundtrip" // publish → handler → ack, both sides at once
)

// Form is how messages are published.
type Form string

const (
	Async    Form = "async"    // one goroutine hands over, answers come later
	Batched  Form = "batch500" // one goroutine sends 500 and waits for their answers
	Blocking Form = "blocking" // each caller waits for the answer to its one message
)

const batchSize = 500

// A Shape is one kind of work, done by every implementation in turn.
type Shape struct {
	Op      Op
	Form    Form // of Publish and RoundTrip
	Callers int  // goroutines that publish
	Workers int  // handlers at once
	Keys    int  // 0 = messages without a key; else the messages of each key must be handled in order
	Groups  int  // subscriptions that each get everything; of RoundTrip
	Size    int  // bytes of a payload
	Rate    int  // messages a second, of Latency

	Retries  bool          // failures are retried by RetryPolicy; only clients that offer it take part
	Loose    bool          // with Keys: what is retried may be passed by later messages of its key
	Poisoned int           // of Latency: every so many-th message on average always fails, and the keys of these are not measured; 0 = none
	FailOnce bool          // of Consumed: each message fails the first time
	For      time.Duration // of Latency: how long a repetition is in a run that has FewReps; 0 = as long as the others

	Work     time.Duration // how long a handler takes
	Defaults bool          // no settings but the implementation's own
	Reps     int           // at least so many repetitions in a run that has FewReps; 0 = as many as the run has
}

// Ideal is what the handlers could do at best, in messages a second; 0 = it depends on the client. Where it is not 0 rows are compared
// with it instead of raw.
func (s Shape) Ideal() float64 {
	if s.Work == 0 {
		return 0
	}
	return float64(s.Workers) / s.Work.Seconds()
}

// Text is what tells a shape from others of its Op, besides callers and size.
func (s Shape) Text() string {
	var parts []string
	add := func(is bool, format string, args ...any) {
		if is {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(s.Form != "", "%s", s.Form)
	add(s.Rate > 0, "rate=%d", s.Rate)
	add(s.Op == RoundTrip || s.Op == Consumed || s.Workers > 1, "workers=%d", s.Workers)
	add(s.Keys > 0, "keys=%d", s.Keys)
	add(s.Groups > 1, "groups=%d", s.Groups)
	add(s.Retries && s.Keys > 0 && !s.Loose, "strict")
	add(s.Loose, "loose")
	add(s.Poisoned > 0, "poisoned=1in%d", s.Poisoned)
	add(s.FailOnce, "failsonce")
	add(s.Work > 0, "handler=%v", s.Work)
	add(s.Defaults, "defaults")
	return strings.Join(parts, "/")
}

// callers is what a row says: those of the side that is measured.
func (s Shape) callers() int {
	if s.Op == Consumed {
		return s.Workers
	}
	return max(s.Callers, 1)
}

// Name is the shape as the name of a Go benchmark.
func (s Shape) Name() string {
	op := strings.ToUpper(string(s.Op[:1])) + string(s.Op[1:])
	return fmt.Sprintf("Benchmark%s/%s/callers=%d/size=%d", op, s.Text(), s.callers(), s.Size)
}

// Shapes are the rows that every broker gets.
func Shapes() []Shape {
	const size = 256
	all := []Shape{
		{Op: Publish, Form: Async, Callers: 1, Size: size},
		{Op: Publish, Form: Batched, Callers: 1, Size: size},
	}
	for _, n := range []int{1, 16, 64, 256, 1024} {
		all = append(all, Shape{Op: Publish, Form: Blocking, Callers: n, Size: size})
	}
	return append(all,
		Shape{Op: Consumed, Workers: 1, Size: size},
		Shape{Op: Consumed, Workers: 16, Keys: 1000, Size: size},
		Shape{Op: Consumed, Workers: 64, Work: time.Millisecond, Defaults: true, Size: size},
		Shape{Op: Latency, Callers: 16, Workers: 1, Rate: 1000, Size: size, Reps: 7})
}

// Failing shows what failures cost: the others while one message in a hundred fails for good, with and without it, and the throughput when every
// message fails once.
func Failing() []Shape {
	const size = 256
	var all []Shape
	for _, loose := range []bool{false, true} {
		for _, poisoned := range []int{0, 100} {
			all = append(all, Shape{Op: Latency, Callers: 16, Workers: 16, Keys: 1000, Size: size, Rate: 1000, Reps: 7, For: 10 * time.Second,
				Retries: true, Loose: loose, Poisoned: poisoned})
		}
	}
	return append(all, Shape{Op: Consumed, Workers: 1, Size: size, Retries: true, FailOnce: true})
}

// RetryPolicy is that of shapes with Retries: five attempts, the delays with full jitter. Where each message fails only once the delay is short and
// fixed, so that what is measured is the work and not the waiting.
func (s Shape) RetryPolicy() (attempts int, first time.Duration, jitter bool) {
	if s.FailOnce {
		return 5, 100 * time.Millisecond, false
	}
	return 5, time.Second, true
}

// poisons says whether a message always fails. It is as good as drawn.
func (s Shape) poisons(num int) bool {
	const mixes = 0x9e3779b97f4a7c15 // the golden ratio: neighbours differ
	return s.Poisoned > 0 && (uint64(num)*mixes)>>32%uint64(s.Poisoned) == 0
}

// fails is Consume.Fails.
func (s Shape) fails() func(payload []byte, attempt int) bool {
	switch {
	case s.FailOnce:
		return func(_ []byte, attempt int) bool { return attempt == 1 }
	case s.Poisoned > 0:
		return func(p []byte, _ int) bool {
			return len(p) >= stampSize && s.poisons(int(binary.LittleEndian.Uint64(p)))
		}
	}
	return nil
}

// spoiled names the keys, by number, that have a message among the first n which always fails.
func (s Shape) spoiled(n int) map[int]bool {
	keys := map[int]bool{}
	for i := range n {
		if s.poisons(i) {
			keys[i%s.Keys] = true
		}
	}
	return keys
}

// Scaling shows what a message costs as its size and the number of keys grow.
func Scaling() []Shape {
	var all []Shape
	for _, size := range []int{1, 16, 256, 4 << 10, 64 << 10, 1 << 20} {
		all = append(all, Shape{Op: RoundTrip, Form: Async, Workers: 1, Size: size})
	}
	for _, keys := range []int{1, 100, 10000} {
		all = append(all, Shape{Op: RoundTrip, Form: Async, Workers: 16, Keys: keys, Size: 256})
	}
	return all
}

// InProcess are the rows of a broker inside the process: there is no wire that hides what the engine costs.
func InProcess() []Shape {
	all := []Shape{
		{Op: RoundTrip, Form: Blocking, Workers: 1, Size: 256},
		{Op: RoundTrip, Form: Blocking, Workers: 16, Keys: 10000, Size: 256},
	}
	for _, n := range []int{10, 100, 1000} {
		all = append(all, Shape{Op: RoundTrip, Form: Async, Workers: 1, Groups: n, Size: 256})
	}
	return all
}
