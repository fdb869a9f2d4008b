package main

import (
	"context"
	"fmt"
	"os"
)

func Example() {
	os.Unsetenv("BROKER_URL")
	fmt.Println(run(context.Background(), "omnibus.yaml", 3))
	// Unordered output:
	// shipped o-1
	// shipped o-2
	// shipped o-3
	// billed o-1 in attempt 1
	// billed o-2 in attempt 2
	// billing gave up o-3: card declined (declined)
	// 6 outcomes, 1 of them given up: 2bcd898720924bb0
	// <nil>
}
