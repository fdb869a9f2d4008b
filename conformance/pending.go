package conformance

import (
	"slices"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Why a property is not run on any broker yet: the beginnings of Property.Pending. It is a closed set.
const (
	needsNetwork  = "needs a broker with a network: "
	laterFailures = "a later issue, failure handling: "
	laterSecurity = "a later issue, signing and encryption: "
)

// pending returns those properties of a group that the contract demands and that nothing can show yet. Each report names them, so
// that none is forgotten.
func pending(group string) []Property {
	all := []Property{
		{
			Name: "Delivery/Replicated", Promises: []int{1}, Pending: needsNetwork + "followers to pause, and a leader whose data is removed",
			Gate: caps("Durability = replicated", func(c pubsub.Capabilities) bool { return c.Durability == pubsub.Replicated }),
			Doc:  "With its followers paused nothing is confirmed, and without its leader's data everything confirmed is still there.",
		},
		{
			Name: "Fidelity/ForeignMessages", Promises: []int{20}, Pending: needsNetwork + "messages that another client writes",
			Doc: "Messages that another client wrote come with their payload, and with the headers that it can say, typed ones too.",
		},
		{
			Name: "Fidelity/MiddlewareViewSigned", Promises: []int{20}, Pending: laterSecurity + "signing middleware",
			Doc: "What publish middleware saw is what consume middleware sees, also of a message that is signed.",
		},
		{
			Name: "Faults/HalfOpen", Promises: []int{5, 14}, Gate: redelivers(), Pending: needsNetwork + "connections that only one side takes for open",
			Doc: "A connection that is open on one side only is noticed, and costs time, not messages.",
		},
		{
			Name: "Faults/ConsumerProcessKilled", Promises: []int{5}, Gate: redelivers(), Pending: needsNetwork + "consumers in processes of their own",
			Doc: "Consumer processes that are killed with SIGKILL at random points lose nothing, and duplicate no more than they held.",
		},
		{
			Name: "Retry/BreakerPauses", Promises: []int{9}, Gate: redelivers(), Pending: laterFailures + "the breaker",
			Doc: "A breaker that opens pauses the subscription, counts no failure and dead-letters nothing.",
		},
		{
			Name: "Retry/MovedPartition", Promises: []int{10}, Gate: redelivers(), Pending: laterFailures + "retries that are moved through tiers",
			Doc: "A message of a retry partition that moves to another member is handled once, never early, and not later than the bound.",
		},
		{
			Name: "DeadLetters/UnparsableBatch", Promises: []int{12}, Gate: redelivers(), Pending: needsNetwork + "record batches that the client cannot parse",
			Doc: "A record batch that cannot be parsed stops its lane only, and State and the metric say so.",
		},
		{
			Name: "DeadLetters/BlockKey", Promises: []int{6, 19}, Gate: redelivers(), Pending: laterFailures + "keys that are blocked after a dead letter",
			Doc: "With BlockKey what follows a dead letter in its key goes to the dead letters too, until the key is freed.",
		},
		{
			Name: "DeadLetters/ReplayRestores", Promises: []int{19, 20}, Gate: redelivers(), Pending: laterFailures + "the replay of dead letters",
			Doc: "A replay gives the group the message byte for byte as it was before it was given up.",
		},
	}
	security := func(name, doc, why string) {
		all = append(all, Property{Name: "Security/" + name, Promises: []int{22}, Doc: doc, Pending: why})
	}
	security("TLS", "Over TLS everything works as it does without.", needsNetwork+"TLS")
	security("MutualTLS", "A client that shows its certificate is let in, and one without is refused.", needsNetwork+"TLS with client certificates")
	security("WrongCA", "A server with a certificate of another authority is refused.", needsNetwork+"TLS")
	security("WrongPassword", "A wrong password is ErrUnauthenticated.", needsNetwork+"accounts with passwords")
	security("CredentialsHidden", "Credentials are in no error and in no line of the log.", needsNetwork+"accounts with passwords")
	security("Attacks", "Every attack of the security page is refused.", laterSecurity+"what refuses them")
	return slices.DeleteFunc(all, func(p Property) bool { return p.Group() != group })
}
