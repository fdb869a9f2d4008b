package main

import (
	"context"
	"fmt"
)

func Example() {
	fmt.Println(run(context.Background(), "mem://"))
	// Output:
	// everything: mon tue wed thu fri sat
	// since-noon: thu fri sat
	// since-friday: fri sat
	// everything, sent back to friday: fri sat
	// <nil>
}
