package main

import (
	"context"
	"fmt"
)

func Example() {
	fmt.Println(run(context.Background(), "mem://"))
	// Output:
	// 3 orders in the folder, topics there: 1
	// arrived: o-1 of ann, tea
	// arrived: o-2 of ann, tea
	// arrived: o-3 of ann, tea
	// <nil>
}
