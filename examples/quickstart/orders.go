package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// An Order is one line of the input.
type Order struct {
	ID       string    `json:"id"`
	Customer string    `json:"customer"`
	PlacedAt time.Time `json:"placed_at"`
	Country  string    `json:"country"`
	Currency string    `json:"currency"`
	Items    []Item    `json:"items"`
	Cents    int64     `json:"cents"`
	Payment  string    `json:"payment"` // a token of the payment gateway
}

// An Item is one position of an order.
type Item struct {
	SKU      string `json:"sku"`
	Name     string `json:"name"`
	Quantity int64  `json:"quantity"`
	Cents    int64  `json:"cents"` // of one piece
}

// orderPlaced binds the Go type to its messages: JSON, in order for each customer.
var orderPlaced = pubsub.Typed[Order]{
	Type: "order.placed",
	Key:  func(o Order) string { return o.Customer },
}

const maxLine = 1 << 20

// readOrders calls order for every order of r, and bad for every line that is none. It stops when order returns an error.
func readOrders(r io.Reader, order func(Order) error, bad func(line int, err error)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	seen := map[string]int{}
	n := 0
	for lines.Scan() {
		n++
		text := bytes.TrimSpace(bytes.TrimPrefix(lines.Bytes(), []byte("\ufeff")))
		if len(text) == 0 {
			continue
		}
		var o Order
		if err := json.Unmarshal(text, &o); err != nil {
			bad(n, err)
			continue
		}
		switch first := seen[o.ID]; {
		case o.ID == "" || o.Customer == "":
			bad(n, errors.New("an order needs an id and a customer"))
			continue
		case first > 0:
			bad(n, fmt.Errorf("order %q was on line %d already", o.ID, first))
			continue
		}
		seen[o.ID] = n
		if err := order(o); err != nil {
			return err
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("line %d: longer than %d bytes; the rest is not read", n+1, maxLine)
	}
	return lines.Err()
}
