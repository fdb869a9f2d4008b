package main

import (
	"context"
	"fmt"
)

func Example() {
	fmt.Println(run(context.Background(), "mem://"))
	// Unordered output:
	// ignored abroad from us
	// circuit open: the bank is down
	// circuit closed
	// booked once
	// dropped the copy of once
	// booked slow
	// level=ERROR msg=dead-lettered topic=payments group=ledger attempt=3 err="no amount"
	// gave up broken: no amount
	// <nil>
}
