// Package conformance proves an adapter right, or finds where it is wrong.
//
// Whoever writes an adapter gives the suite a [Harness], in the smallest case a function that opens a driver, and calls [Run] from a test:
//
//	func TestConformance(t *testing.T) {
//		conformance.Run(t, conformance.Harness{
//			Driver: func(ctx context.Context) (pubsub.Driver, error) { return dial(ctx, url) },
//		})
//	}
//
// # What is asked
//
// Each [Property] states one promise of package pubsub. The suite goes through the public API, wraps the driver to break it (sessions cut,
// answers lost, processes killed), records what was confirmed and what arrived, and counts duplicates against a bound instead of forgiving
// them.
//
// Many properties have a gate: capabilities that the driver itself declares for the server that it is connected to. A gate works both ways. What is
// declared must hold. Of what is not declared the suite asserts that it is refused with pubsub.ErrUnsupported, naming feature and adapter,
// wherever a caller can ask for it; else the property is reported as gated. So an adapter gains nothing by claiming less.
//
// Properties that mostly wait, for a delay, a lease or a grace, run beside others, up to five at once; those that break the broker run alone. Where
// Harness.Wrap has a virtual clock nothing waits, and they run one after another.
//
// # What comes of it
//
//	pass           it holds; or the feature is not declared, and refused
//	fail           it does not, or it passes although Harness.KnownFailing names it
//	known-failing  it does not, as Harness.KnownFailing says
//	gated          the broker does not declare what it is about, and nobody can ask for it
//	not-run        the harness cannot cause the fault that it takes
//
// Nothing is skipped silently: a property that was not run fails the run unless the report names why. A failure that begins with "setup:", "panic:" or
// "harness:" says that the suite could not ask its question; any other is the property's own assertion.
//
// Every run of all properties, failed or not, writes conformance-<broker>-<variant>.json, and JUnit XML beside it, to OMNIBUS_REPORTS, by default
// build/reports beside go.mod. Package report makes a page of any number of them.
//
// # How to find a cause
//
// The table at the end of a run says for each failure what was promised, what was seen, the command that repeats it, and how an adapter is broken that
// fails so. To repeat the suite's random choices set SEED to the number that the failure names; what the network and the broker do is not repeated. One
// property alone runs with
//
//	SEED=42 go test -race -run 'TestConformance/Order/PerKey$'
//
// and writes no report, since it would replace that of a whole run.
//
// # Soaking
//
// [Soak] goes on for as long as one likes: schedules of faults that follow from a seed, under load, with what the Harness can do to its broker
// (Kill and Start, [Fault]) and with consumers that are killed, in processes of their own where the Harness has an Address.
//
//	func TestMain(m *testing.M) {
//		conformance.Member(dial) // a process that Soak has started ends here
//		os.Exit(m.Run())
//	}
//
//	func TestSoak(t *testing.T) {
//		conformance.Soak(t, conformance.Harness{Driver: open, Kill: kill, Start: start, Faults: faults, Address: url})
//	}
//
//	MINUTES=20 SEED=42 go test -race -timeout 30m -run TestSoak
//
// # Why to believe it
//
// [Mutants] are adapters with one fault each. [RunMutants] shows that the property which a mutant breaks notices it by its own assertion. A
// property without a mutant is not in the suite.
//
// The package links no package testing, so a command can run the suite too: see [Check].
package conformance
