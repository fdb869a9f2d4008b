package conformance

import (
	"slices"
)

// Why a property is not run on any broker yet: the beginnings of Property.Pending. It is a closed set.
const needsNetwork = "needs a broker with a network: "

// pending returns those properties of a group that the contract demands and that nothing can show yet. Each report names them, so
// that none is forgotten.
func pending(group string) []Property {
	all := []Property{
		{
			Name: "Faults/ConsumerProcessKilled", Promises: []int{5}, Gate: redelivers(), Pending: needsNetwork + "a mutant in a process of its own, as mutants are tried on a broker that no other process can reach",
			Doc: "Consumer processes that are killed with SIGKILL at random points lose nothing, and duplicate no more than they held.",
		},
		{
			Name: "DeadLetters/UnparsableBatch", Promises: []int{12}, Gate: redelivers(), Pending: needsNetwork + "record batches that the client cannot parse",
			Doc: "A record batch that cannot be parsed stops its lane only, and State and the metric say so.",
		},
	}
	return slices.DeleteFunc(all, func(p Property) bool { return p.Group() != group })
}
