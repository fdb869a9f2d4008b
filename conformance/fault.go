package conformance

import "context"

// A Fault is what a Harness can do to its broker while it is used, beyond killing it: freeze it, cut the network, remove one node of a
// cluster. The suite draws faults by a seed, lets one happen at a time, and waits between Strike and mend as long as the seed says.
type Fault struct {
	// Name is how reports show it: "cut", "kill node 2". The same names in the same order give the same schedule for the same seed.
	Name string

	// Loses says that it removes for good what one of several nodes has stored. It happens only to brokers that declare replicated
	// durability.
	Loses bool

	// Strike lets it happen. mend is called once, undoes it, returns when the broker serves again, and says whether the fault has been
	// seen to work, by what the broker or the network has to show for it: another process id, counters that stood still, a client
	// that was refused. A fault without effect counts for nothing.
	Strike func(ctx context.Context) (mend func(ctx context.Context) (effect bool, err error), err error)
}
