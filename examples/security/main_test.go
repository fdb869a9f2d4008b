package main

import (
	"context"
	"fmt"
)

func Example() {
	fmt.Println(run(context.Background(), "mem://security"))
	// Output:
	// orders are signed with orders-1
	// orders are signed with orders-2, the keys before it are gone
	// orders are signed with orders-3, the keys before it are gone
	// each order was billed, none was refused
	// the thief can read it: false
	// sent again: it is not billed again
	// changed: signature does not fit
	// made up: not signed
	// <nil>
}
