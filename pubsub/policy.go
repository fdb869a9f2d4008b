package pubsub

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"time"
)

// A Policy says how often and how soon a failed message is tried again. The delays grow from Initial by Factor up to
// Max and have full jitter: each is a random time between 0 and that length.
type Policy struct {
	Name        string          // which policy it is, for people: in dead letters and events; "" = its rule's Category, or "default"
	MaxAttempts int             // handler calls in all; 0 = 10; Unlimited
	MaxElapsed  time.Duration   // since the first delivery to this process; 0 = no bound
	Immediate   int             // of the attempts, how many follow at once in process; 0 = none
	Initial     time.Duration   // first delay; 0 = 1s
	Max         time.Duration   // longest delay; 0 = 5min
	Factor      float64         // growth, at least 1; 0 = 2
	Delays      []time.Duration // instead of Initial, Factor and Max: as written, no jitter, the last one repeats
}

// longestDelay is what longer ones are, Forever too: a century. Brokers count time in nanoseconds since 1970 or in milliseconds, and what is to wait for longer than
// they can count comes at once.
const longestDelay = 100 * 365 * 24 * time.Hour

// Unlimited attempts: a message is retried until it succeeds or MaxElapsed is over.
const Unlimited = -1

// A Rule gives a kind of failure a category and its own policy.
type Rule struct {
	Category string           // kept in the dead letter; Route goes by it
	When     func(error) bool // whether this is the kind; required; one that panics says no
	Retry    Policy           // zero = the default policy
}

// Classify does for middleware what a subscription's rules do: where When matches, err is retried by Retry and has the category.
// The innermost classification wins, so an err that is classified already stays what it is. matched tells whether When matched; a When that
// panics does not.
func (r Rule) Classify(err error) (matched bool, _ error) {
	if err == nil || !matches(&r, err) {
		return false, err
	}
	p := r.policy()
	return true, &outcome{kind: OutcomeRetry, policy: &p, category: r.Category, err: err}
}

// policy is Retry with its defaults.
func (r *Rule) policy() Policy {
	p := r.Retry
	p.Name = cmp.Or(p.Name, r.Category)
	return p.withDefaults()
}

// Check is nil, or an error that names the first field that is out of its bounds.
func (p Policy) Check() error { return p.check("Policy") }

func (p Policy) withDefaults() Policy {
	p.Name = cmp.Or(p.Name, "default")
	if p.MaxAttempts == 0 {
		p.MaxAttempts = 10
	}
	if p.Initial == 0 {
		p.Initial = time.Second
	}
	if p.Max == 0 {
		p.Max = max(5*time.Minute, p.Initial)
	}
	if p.Factor == 0 {
		p.Factor = 2
	}
	return p
}

// check names the field that is out of its bounds.
func (p Policy) check(field string) error {
	switch {
	case p.MaxAttempts < Unlimited:
		return fmt.Errorf("%s.MaxAttempts is %d; it is at least 1, 0 for the default, or Unlimited", field, p.MaxAttempts)
	case p.Immediate < 0:
		return fmt.Errorf("%s.Immediate is %d; it cannot be negative", field, p.Immediate)
	case p.MaxElapsed < 0, p.Initial < 0, p.Max < 0:
		return fmt.Errorf("%s has a negative duration", field)
	case p.Factor != 0 && !(p.Factor >= 1):
		return fmt.Errorf("%s.Factor is %v; it is at least 1, or 0 for the default", field, p.Factor)
	case p.Max != 0 && p.Initial > p.Max:
		return fmt.Errorf("%s.Initial of %v is longer than Max of %v", field, p.Initial, p.Max)
	}
	for _, d := range p.Delays {
		if d < 0 {
			return fmt.Errorf("%s.Delays has the negative %v", field, d)
		}
	}
	return nil
}

// longest is the longest delay before retry n (1 = the first), before jitter.
func (p Policy) longest(n int) time.Duration {
	n -= p.Immediate
	if n <= 0 {
		return 0
	}
	if len(p.Delays) > 0 {
		return min(p.Delays[min(n, len(p.Delays))-1], longestDelay)
	}
	d, limit := float64(p.Initial), float64(min(p.Max, longestDelay))
	for ; n > 1 && d < limit; n-- {
		d *= p.Factor
	}
	return time.Duration(min(d, limit))
}

// delay is how long to wait before retry n.
func (p Policy) delay(n int) time.Duration {
	d := p.longest(n)
	if d > 0 && len(p.Delays) == 0 {
		d = rand.N(d)
	}
	return d
}

// Span tells how long a message that always fails is retried before it is a dead letter, on average and at most.
// Subscribe logs it.
func (p Policy) Span() (mean, longest time.Duration) {
	p = p.withDefaults()
	if p.MaxAttempts == Unlimited && p.MaxElapsed == 0 {
		return Forever, Forever
	}
	for n := 1; n < p.MaxAttempts || p.MaxAttempts == Unlimited; n++ {
		longest += min(p.longest(n), Forever-longest)
		if p.MaxElapsed > 0 && longest >= p.MaxElapsed || p.MaxAttempts == Unlimited {
			longest = p.MaxElapsed
			break
		}
	}
	if len(p.Delays) > 0 {
		return longest, longest
	}
	return longest / 2, longest
}

// maxRetries is the number of the retry with the longest delay that can happen.
func (p Policy) maxRetries() int {
	if p.MaxAttempts == Unlimited {
		return 1 << 16
	}
	return p.MaxAttempts - 1
}
