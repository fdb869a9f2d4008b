package main

import (
	"context"
	"fmt"
)

func Example() {
	fmt.Println(run(context.Background(), "mem://"))
	// Output:
	//  100  max-attempts  outage    the gateway does not answer
	//   20  permanent               card declined
	// o-1 of ann: max-attempts after 2 attempts, the gateway does not answer
	// planned: 100
	// interrupted on the way: true
	// resumed: 100 of 100 replayed, 0 failed
	// 100 orders billed that the outage had cost
	// <nil>
}
