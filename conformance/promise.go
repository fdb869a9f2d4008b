package conformance

// A Promise is one of those of DESIGN.md, which the properties belong to.
type Promise struct {
	Number int    // from 1; what Property.Promises holds
	Title  string // in a few words
	Breach string // what users of a broker suffer that does not keep it
}

// Promises returns them in order.
func Promises() []Promise {
	texts := [][2]string{
		{"nil means accepted", "Publish says that a message is stored which is not: messages are lost and nobody knows."},
		{"everything else is an error", "A failed publish looks like success, or the other way round: callers lose messages or send them twice."},
		{"order per key at publish", "Messages of a key are stored in another order than they were published in: what is built from them is wrong."},
		{"the caller's message is untouched", "Publishing changes or keeps memory of the caller: whoever uses a message or a buffer again sends garbage."},
		{"at least once, for groups", "A message whose handler did not finish does not come again: a crash, a restart or a network failure loses work."},
		{"order per key at consume", "Messages of a key are handled at once or the wrong way round, or one key holds up the others."},
		{"bounded", "A slow handler lets messages pile up in its process: memory grows until it is killed."},
		{"leases", "A message goes to another member while its handler still works, or stays for ever with one that does not."},
		{"attempts", "A message is tried more or less often than asked for, and one that kills its process does so again and again."},
		{"delayed redelivery", "A retry comes too early or too late: what is down gets no rest, or work is late."},
		{"settle once", "A late settlement ends another's delivery: a message is lost or handled again."},
		{"undecodable messages", "One broken message stops a whole subscription."},
		{"drain", "Every deployment loses, repeats or dead-letters messages."},
		{"reconnects", "After a network failure a service has to be restarted, or it hides that its topic or its rights are gone."},
		{"no panic, no leak", "A process dies, hangs or grows with time."},
		{"no silent downgrade", "What was asked for is missing, and nobody is told."},
		{"same defaults", "A program behaves differently on another broker, although nothing in it says so."},
		{"typed errors", "Callers cannot decide by an error's code, or a log shows a password."},
		{"given up means kept", "A message that was given up is gone or changed: nobody can mend and replay it."},
		{"fidelity", "What arrives is not what was sent."},
		{"delay, priority, seek, lag, TTL", "A declared feature does something else than it says: schedules and alarms cannot be relied on."},
		{"attacks are refused", "A known attack works."},
	}
	all := make([]Promise, len(texts))
	for i, t := range texts {
		all[i] = Promise{i + 1, t[0], t[1]}
	}
	return all
}

// Refuses says whether a broker that does not declare the gate is asked to refuse the feature by name. Where it is not, nobody can ask
// for the feature, and the property is reported as gated.
func (p Property) Refuses() bool { return p.refused != nil }
