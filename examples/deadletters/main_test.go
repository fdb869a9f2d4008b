package main

import (
	"context"
	"fmt"
)

func Example() {
	fmt.Println(run(context.Background(), "mem://"))
	// Output:
	//   40  max-attempts  outage    the gateway does not answer
	//   20  permanent               card declined
	// o-1 of ann: max-attempts after 2 attempts, the gateway does not answer
	// planned: 40
	// interrupted on the way: true
	// resumed: 40 of 40 replayed, 0 failed
	// 40 orders billed that the outage had cost
	// <nil>
}
