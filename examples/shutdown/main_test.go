package main

import (
	"context"
	"fmt"
)

func Example() {
	fmt.Println(run(context.Background(), "mem://"))
	// Output:
	// stopped with 4 handlers running, 4 of them finished
	// left for the next process: true
	// done in the end: 100 of 100, each once and in its first attempt: 100
	// <nil>
}
