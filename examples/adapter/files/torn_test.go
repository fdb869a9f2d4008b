package files_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/omnibus-go/omnibus/examples/adapter/files"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A process may be killed while it writes. Wherever the file ends then, the next one has each message that was written whole, and goes on.
func TestTornFile(t *testing.T) {
	group := pubsub.Subscription{Topic: "orders", Group: "billing", Order: pubsub.OrderPerMember}
	open := func(dir string) *pubsub.Broker {
		b, err := pubsub.New(t.Context(), files.NewBus(dir).Driver(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{group}}); err != nil {
			t.Fatal(err)
		}
		return b
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "orders", "group.billing")
	b := open(dir)
	var ends []int // of the file, after each message
	size := func() int {
		f, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return int(f.Size())
	}
	publish := func(b *pubsub.Broker, id string) {
		if err := b.Publish(t.Context(), "orders", pubsub.Message{ID: id, Payload: []byte("tea")}); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 3 {
		publish(b, fmt.Sprint(n))
		ends = append(ends, size())
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for end := 0; end <= len(whole); end++ {
		var want []string
		for n, e := range ends {
			if e <= end {
				want = append(want, fmt.Sprint(n))
			}
		}
		if err := os.WriteFile(path, whole[:end], 0o600); err != nil {
			t.Fatal(err)
		}
		b := open(dir)
		publish(b, "after")
		want = append(want, "after")
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b = open(dir)
		var got []string
		leases, err := b.Receive(t.Context(), group)
		if err != nil {
			t.Fatal(err)
		}
		for lease, err := range leases {
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, lease.ID); len(got) == len(want) {
				break
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("cut at %d of %d: %v, want %v", end, len(whole), got, want)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
