package conformance_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// All that it takes to prove an adapter: a test, and a harness. The server here is the one in memory; yours is a process that the
// functions start, kill and dial.
func ExampleRun() {
	// func TestConformance of your adapter's package:
	testConformance := func(t *testing.T) { //nolint:thelper // it stands for a test
		server := memory.NewServer(memory.Config{})
		conformance.Run(t, conformance.Harness{
			// The one thing that must be there: a connection of its own at each call.
			Driver: func(context.Context) (pubsub.Driver, error) { return server.Driver(), nil },

			// What lets the suite cause faults. What is left out leaves some properties not run, and the report says so.
			Kill:        func(context.Context) error { server.Crash(); return nil },
			Start:       func(context.Context) error { server.Restart(); return nil },
			DeleteTopic: func(_ context.Context, topic string) error { server.DeleteTopic(topic); return nil },

			// What the report is to say, and what nobody is to be surprised by. One of these that passes fails the run.
			Variant:       "one node",
			ServerVersion: "4.3.1",
			KnownFailing:  map[string]string{"Time/TTL": "issue 12: it keeps times to the second"},
		})
	}
	_ = testConformance
}

// A program without package testing asks with Check, which takes as long as a run on a real broker.
func ExampleCheck() {
	server := memory.NewServer(memory.Config{})
	report, err := conformance.Check(context.Background(), conformance.Harness{
		Driver: func(context.Context) (pubsub.Driver, error) { return server.Driver(), nil },
	}, func(p conformance.PropertyResult) { fmt.Println(p.Name, p.Status) })
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := report.Write("build/reports"); err != nil {
		fmt.Println(err)
	}
	fmt.Println("keeps its promises:", report.OK())
}

// What is asked of a broker that declares a capability, and which of it must be refused by one that does not.
func ExampleProperties() {
	for _, p := range conformance.Properties() {
		if p.Gate.Text == "Schedule" {
			fmt.Printf("%s (promise %v), refused by others: %v\n", p.Name, p.Promises, p.Refuses())
		}
	}
	// Output:
	// Time/Delay (promise [21]), refused by others: true
}
