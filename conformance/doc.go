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
// Each [Property] states one promise of package pubsub and the capability that gates it. What the broker declares must hold; what it does not
// declare must be refused by name where a caller can ask for it. The suite goes through the public API, wraps the driver to break it (sessions
// cut, answers lost, processes killed), records what was confirmed and what arrived, and counts duplicates against a bound instead of forgiving them.
// Every run writes a JSON report to OMNIBUS_REPORTS, by default build/reports beside go.mod; nothing is skipped silently. SEED=n repeats what is
// random.
//
// [Mutants] are adapters with one fault each. [RunMutants] shows that the property which a mutant breaks notices it by its own assertion. A
// property without a mutant is not in the suite.
//
// The package links no package testing, so a command can run the suite too: see [Check].
package conformance
