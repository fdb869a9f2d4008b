package main

import (
	"context"
	"fmt"
)

func Example() {
	fmt.Println(run(context.Background(), "mem://"))
	// Unordered output:
	// ann placed o-1: tea, milk
	// ann canceled o-1: too late
	// o-1 passed gate 7 (text/plain)
	// kept in the dead letters, order.placed: {"order":
	// kept in the dead letters, order.lost: {"order":"o-2"}
	// <nil>
}
