package bench

import (
	"runtime"
	"time"
)

// A meter measures between two moments. Its figures are the whole process's: with a broker inside, the broker's too.
type meter struct {
	wire    func() int64
	start   time.Time
	cpu     time.Duration
	mallocs uint64
	bytes   int64
}

// A sample is one repetition.
type sample struct {
	count   int // messages, or deliveries
	elapsed time.Duration
	cpu     time.Duration // < 0 = this system does not say
	mallocs uint64
	wire    int64           // < 0 = not counted
	delays  []time.Duration // of Latency, sorted
}

func (s sample) rate() float64           { return float64(s.count) / s.elapsed.Seconds() }
func (s sample) per(total int64) float64 { return float64(total) / float64(s.count) }

// begin starts the clock.
func (m *meter) begin() {
	m.mallocs = mallocs()
	if m.wire != nil {
		m.bytes = m.wire()
	}
	m.cpu = cpuTime()
	m.start = time.Now()
}

// end stops the clock: count messages have passed.
func (m *meter) end(count int) sample {
	s := sample{count: count, elapsed: max(time.Since(m.start), 1), cpu: -1, wire: -1}
	if now := cpuTime(); now >= 0 {
		s.cpu = now - m.cpu
	}
	if m.wire != nil {
		s.wire = m.wire() - m.bytes
	}
	s.mallocs = mallocs() - m.mallocs
	return s
}

func mallocs() uint64 {
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.Mallocs
}
