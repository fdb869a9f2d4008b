package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"time"
)

// Options say what a run does and how long it takes.
type Options struct {
	Broker  string
	Server  string // its version; "" = unknown, or there is no server
	Variant string
	Reps    int            // repetitions of each row, after a warm-up
	Each    time.Duration  // about how long a repetition takes
	Only    *regexp.Regexp // rows whose name it matches; nil = all
	Log     io.Writer      // told what is being measured

	Patience time.Duration // without any progress, until messages count as lost; 0 = 20s
}

// FewReps is how many repetitions a report needs: with fewer the medians say too little.
const FewReps = 5

// calibration bounds how a warm-up finds out how many messages a repetition needs.
const (
	firstCount = 200 // deliveries
	firstBytes = 4 << 20
	growth     = 20
	slowest    = 5 // a repetition takes at most so many times Options.Each, however many messages it should have
)

// Run measures each shape with each plug, interleaved, and returns what it found out. The error says what went wrong: a loss, a
// failed publish. The report then has no row for it, and what it has is not to be relied on.
func Run(ctx context.Context, o Options, plugs []Plug, shapes []Shape) (*Report, error) {
	if o.Reps < 1 || o.Each <= 0 {
		return nil, errors.New("bench: Reps and Each are to be positive")
	}
	if o.Patience == 0 {
		o.Patience = 20 * time.Second
	}
	r := &Report{Schema: "omnibus.bench/1", Broker: o.Broker, Server: o.Server, Rows: []Row{}, o: o, plugs: plugs, without: map[string]int{}}
	var errs []error
	for _, sh := range shapes {
		if o.Only != nil && !o.Only.MatchString(sh.Name()) {
			r.partial = true
			continue
		}
		if o.Reps < FewReps {
			sh.For = 0
		}
		fmt.Fprint(o.Log, sh.Name())
		began := time.Now()
		err := r.measure(ctx, sh)
		fmt.Fprintf(o.Log, " took %.1fs\n", time.Since(began).Seconds())
		if err != nil {
			errs = append(errs, err)
			fmt.Fprintln(o.Log, "FAIL:", err)
		}
		if ctx.Err() != nil {
			errs = append(errs, context.Cause(ctx))
			break
		}
	}
	r.partial = r.partial || o.Reps < FewReps
	return r, errors.Join(errs...)
}

// A runner is one plug's part of a shape.
type runner struct {
	plug    Plug
	sh      Shape
	o       *Options
	all     *corpus
	count   int // messages of a repetition; 0 while it warms up
	samples []sample
	topics  int
}

func (r *Report) measure(ctx context.Context, sh Shape) error {
	plugs := r.plugs
	if sh.Ideal() > 0 {
		plugs = append([]Plug{Ideal()}, plugs...)
	}
	var errs []error
	var part []*runner
	all := newCorpus(sh)
	for _, p := range plugs {
		rn := &runner{plug: p, sh: sh, o: &r.o, all: all}
		n, err := rn.calibrate(ctx)
		if why, ok := offered(err); !ok {
			r.without[p.Impl+", "+why]++
			continue
		} else if err != nil {
			errs = append(errs, err)
			continue
		}
		rn.count = n
		part = append(part, rn)
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	reps := r.o.Reps
	if reps >= FewReps {
		reps = max(reps, sh.Reps)
	}
	for rep := range reps {
		for i := range part { // the first in turn is another each time
			rn := part[(i+rep)%len(part)]
			s, err := rn.once(ctx, rn.count)
			if err != nil {
				return err
			}
			rn.samples = append(rn.samples, s)
		}
	}
	r.add(sh, part)
	return nil
}

// most is how many messages a repetition has at most.
func (s Shape) most(each time.Duration) int {
	switch {
	case s.Op == Latency && s.For > 0:
		return int(s.For.Seconds() * float64(s.Rate))
	case s.Op == Latency:
		return max(int(4*each.Seconds()*float64(s.Rate)), s.Rate/20)
	case s.Groups > 1:
		return max(maxMessages/s.Groups, 1)
	}
	return mostOf(s.Size)
}

// once is one repetition with a fresh client and a fresh topic.
func (rn *runner) once(ctx context.Context, n int) (s sample, err error) {
	rn.topics++
	topic := "bench." + string(rn.sh.Op) + "-" + rn.plug.Impl + "-" + strconv.FormatInt(time.Now().UnixNano(), 36) + "-" + strconv.Itoa(rn.topics)
	fail := func(err error) error {
		if _, ok := offered(err); err == nil || !ok {
			return err
		}
		return fmt.Errorf("%s, %s: %w", rn.sh.Name(), rn.plug.Impl, err)
	}
	c, err := rn.plug.Open(ctx)
	if err != nil {
		return s, fail(err)
	}
	defer func() { err = errors.Join(err, fail(c.Close(ctx))) }()
	rn.all.extend(n)
	t := trial{c: c, sh: rn.sh, all: rn.all, n: n, topic: topic, warm: rn.count > 0, patience: rn.o.Patience}
	s, err = t.run(ctx)
	return s, fail(err)
}

// calibrate warms up, with ever more messages until it has taken a fair part of a repetition, and returns how many messages fill one.
func (rn *runner) calibrate(ctx context.Context) (int, error) {
	most := rn.sh.most(rn.o.Each)
	n := max(min(firstCount/max(rn.sh.Groups, 1), firstBytes/max(rn.sh.Size, 1), most), 1)
	if rn.sh.Op == Latency {
		n = most // its rate is given
	}
	for {
		began := time.Now()
		s, err := rn.once(ctx, n)
		if err != nil {
			return 0, err
		}
		if n == most || s.elapsed >= rn.o.Each/2 || time.Since(began) >= slowest*rn.o.Each {
			return rn.fill(s.rateOf(n), most), nil
		}
		next := float64(n) * min(growth, max(2, 0.6*rn.o.Each.Seconds()/s.elapsed.Seconds()))
		n = min(int(next), most)
	}
}

// rateOf is how many of the messages published pass in a second; with several groups count is more than these.
func (s sample) rateOf(published int) float64 { return float64(published) / s.elapsed.Seconds() }

// fill is how many messages a repetition has at this rate.
func (rn *runner) fill(rate float64, most int) int {
	if rn.sh.Op == Latency {
		return most
	}
	each := rn.o.Each.Seconds()
	n := rate * each
	if rn.sh.Op == Consumed {
		n = max(n, min(float64(leastOf(rn.sh.Size)), slowest*rate*each))
	}
	return max(min(int(n), most), 1)
}
