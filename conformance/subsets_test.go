package conformance_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A claiming driver says less than it can do.
type claiming struct {
	pubsub.Driver
	pubsub.Browser
	pubsub.Lagger
	pubsub.Seeker
	pubsub.Waiter
	pubsub.Rescheduler
	less func(c *pubsub.Capabilities)
}

func (d claiming) Capabilities() pubsub.Capabilities {
	c := d.Driver.Capabilities()
	d.less(&c)
	return c
}

// A sound broker that claims less than memory passes: no property takes for granted what it does not gate.
func TestFewerCapabilities(t *testing.T) {
	brokers := map[string]func(c *pubsub.Capabilities){
		"a queue": func(c *pubsub.Capabilities) {
			c.History, c.Order, c.Exclusive, c.RetryIn, c.StoresAttempts = false, pubsub.OrderInMember, false, 0, pubsub.StoresNone
		},
		"no delays": func(c *pubsub.Capabilities) { // retries go through tiers
			c.RetryIn, c.Tiers, c.RetryLate, c.Waiting = 0, true, 2*time.Second, pubsub.WaitingListed
		},
		"short leases": func(c *pubsub.Capabilities) {
			c.LeaseMax, c.RetryIn, c.MaxMessage, c.Partitions = 10*time.Minute, time.Minute, 0, false
		},
	}
	for _, name := range slices.Sorted(maps.Keys(brokers)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rep := checkIn(t, changed(func(d pubsub.Driver) pubsub.Driver {
				return claiming{d, d.(pubsub.Browser), d.(pubsub.Lagger), d.(pubsub.Seeker), d.(pubsub.Waiter), d.(pubsub.Rescheduler), brokers[name]}
			}))
			for _, p := range rep.Properties {
				if p.Status == conformance.Failed {
					t.Errorf("%s fails: %s", p.Name, p.Reason)
				}
			}
		})
	}
}
