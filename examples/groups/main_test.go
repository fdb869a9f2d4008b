package main

import (
	"context"
	"fmt"
)

func Example() {
	fmt.Println(run(context.Background(), "mem://"))
	// Output:
	// packing: 60 parcels, 60 of them once, by 3 members
	// customs: 60 parcels, 60 of them once
	// screen 1: 60 parcels, 60 of them once
	// screen 2: 60 parcels, 60 of them once
	// <nil>
}
