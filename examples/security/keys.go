package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/omnibus-go/omnibus/middleware/security"
)

// A ring is the keyring file of one service.
type ring struct {
	path string
	keys []security.Key
}

// write puts the keys into their place in one step: the service may read them at any time.
func (r *ring) write() error {
	text, err := security.EncodeKeys(r.keys...)
	if err != nil {
		return err
	}
	next := r.path + ".next"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return err
	}
	return os.Rename(next, r.path)
}

// rings are those of both: each has the private halves of its own keys only.
type rings struct{ orders, billing ring }

func newRings(dir string) *rings {
	return &rings{orders: ring{path: filepath.Join(dir, "orders.keys")}, billing: ring{path: filepath.Join(dir, "billing.keys")}}
}

// write writes who accepts before who signs.
func (r *rings) write() error { return errors.Join(r.billing.write(), r.orders.write()) }

// add makes the n-th keys: orders signs with one, and encrypts for the other, which is billing's.
func (r *rings) add(n int, status security.Status) error {
	sign, err1 := security.GenerateKey(security.Ed25519, fmt.Sprintf("orders-%d", n), "orders")
	wrap, err2 := security.GenerateKey(security.HPKEX25519, fmt.Sprintf("billing-%d", n), "billing")
	verify, err3 := sign.Public()
	wrapFor, err4 := wrap.Public()
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	r.orders.keys = append(r.orders.keys, sign.With(status), wrapFor.With(status))
	r.billing.keys = append(r.billing.keys, verify.With(status), wrap.With(status))
	return r.write()
}

// set gives the keys of two numbers their statuses, at once.
func (r *rings) set(n int, status security.Status, other int, otherStatus security.Status) error {
	for _, keys := range [][]security.Key{r.orders.keys, r.billing.keys} {
		for i, k := range keys {
			switch {
			case isNumber(k, n):
				keys[i] = k.With(status)
			case isNumber(k, other):
				keys[i] = k.With(otherStatus)
			}
		}
	}
	return r.write()
}

// drop deletes the n-th keys.
func (r *rings) drop(n int) error {
	gone := func(k security.Key) bool { return isNumber(k, n) }
	r.orders.keys, r.billing.keys = slices.DeleteFunc(r.orders.keys, gone), slices.DeleteFunc(r.billing.keys, gone)
	return r.write()
}

func isNumber(k security.Key, n int) bool { return strings.HasSuffix(k.ID, fmt.Sprintf("-%d", n)) }
