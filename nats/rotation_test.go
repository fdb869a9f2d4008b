package nats_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/internal/child"
	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A rotator is a process of TestKeysRotateUnderLoad: this program, started again.
type rotator struct {
	URL, Keys string
	Name      string // of a publisher; "" = it consumes
}

const (
	rotators    = "rotator" // the name of such processes
	rotatorPoll = 100 * time.Millisecond
)

func (r rotator) run(told context.Context) error {
	ctx := context.WithoutCancel(told) // what has begun goes on
	keys, err := security.OpenKeyring(r.Keys, security.KeyringOptions{Poll: rotatorPoll, OnReload: func(err error) {
		if err != nil {
			fmt.Println("error", err)
		}
	}})
	if err != nil {
		return err
	}
	producer := ""
	encrypt := security.EncryptOptions{Unwrap: []security.KMS{keys.KMS("")}}
	if r.Name != "" {
		producer = "orders"
		encrypt = security.EncryptOptions{Producer: producer, Recipients: []security.KMS{keys.KMS("billing")}}
	}
	b, err := nats.Open(ctx, r.URL, &pubsub.Options{Use: []pubsub.Middleware{
		security.Sign(security.SignOptions{Keys: keys, Producer: producer}), security.Encrypt(encrypt),
	}})
	if err != nil {
		return err
	}
	if r.Name == "" {
		err = r.consume(ctx, b, told.Done())
	} else {
		err = r.publish(ctx, b, told.Done())
	}
	if err != nil {
		return err
	}
	return b.Close()
}

func rotationGroup() pubsub.Subscription {
	return pubsub.Subscription{Topic: "orders", Group: "billing", Order: pubsub.OrderNone, Concurrency: 4}
}

func (r rotator) consume(ctx context.Context, b *pubsub.Broker, stop <-chan struct{}) error {
	_, err := b.Subscribe(ctx, rotationGroup(), func(ctx context.Context, d *pubsub.Delivery) error {
		v, _ := security.From(ctx)
		if string(d.Payload) != "secret of "+d.ID {
			fmt.Println("error the payload of", d.ID, "is another's")
		}
		fmt.Println("handled", d.ID, v.Key)
		return nil
	})
	if err == nil {
		fmt.Println("ready")
		<-stop
	}
	return err
}

func (r rotator) publish(ctx context.Context, b *pubsub.Broker, stop <-chan struct{}) error {
	fmt.Println("ready")
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return nil
		case <-tick.C:
		}
		id := fmt.Sprintf("%s-%d", r.Name, i)
		if err := b.Publish(ctx, "orders", pubsub.Message{ID: id, Type: "order", Payload: []byte("secret of " + id)}); err != nil {
			fmt.Println("error", err)
			continue
		}
		fmt.Println("published", id)
	}
}

// start starts it, and returns what ends it; told is called with each line that it writes.
func (r rotator) start(t *testing.T, told func(line string)) (stop func()) {
	t.Helper()
	p := child.Start(t, "", rotators, r)
	if line := <-p.Lines; line != "ready" {
		t.Fatalf("process %q says %q", r.Name, line)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for line := range p.Lines {
			told(line)
		}
	}()
	return sync.OnceFunc(func() {
		p.Quit()
		<-read
		if _, err := p.Wait(); err != nil {
			t.Errorf("process %q: %v", r.Name, err)
		}
	})
}

// A rotation is what a test has seen of keys that change.
type rotation struct {
	dir          string
	signs, wraps []security.Key // the newest is last

	mu                 sync.Mutex
	published, handled map[string]bool
	keys               map[string]int // messages by the key that has signed them
	errors             []string
}

// write puts both files into their places: the producer's, which has the private halves that sign, and the consumer's, which has those that unwrap.
func (r *rotation) write(t *testing.T) {
	t.Helper()
	public := func(k security.Key) security.Key {
		p, err := k.Public()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	files := map[string][]security.Key{"producer": slices.Clone(r.signs), "consumer": slices.Clone(r.wraps)}
	for _, k := range r.wraps {
		files["producer"] = append(files["producer"], public(k))
	}
	for _, k := range r.signs {
		files["consumer"] = append(files["consumer"], public(k))
	}
	for name, keys := range files {
		text, err := security.EncodeKeys(keys...)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(r.dir, name)
		if err := os.WriteFile(path+".next", text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".next", path); err != nil {
			t.Fatal(err)
		}
	}
}

// add makes a new key of each sort, passive unless it is the first.
func (r *rotation) add(t *testing.T, n int) {
	t.Helper()
	for _, list := range []struct {
		keys  *[]security.Key
		suite security.Suite
		name  string
		owner string
	}{{&r.signs, security.Ed25519, "sign", "orders"}, {&r.wraps, security.HPKEX25519, "wrap", "billing"}} {
		k, err := security.GenerateKey(list.suite, fmt.Sprintf("%s-%d", list.name, n), list.owner)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			k = k.With(security.Passive)
		}
		*list.keys = append(*list.keys, k)
	}
	r.write(t)
}

// activate makes the newest keys those that sign and wrap, and forgets all but the two before.
func (r *rotation) activate(t *testing.T) {
	t.Helper()
	for _, keys := range []*[]security.Key{&r.signs, &r.wraps} {
		for i, k := range *keys {
			(*keys)[i] = k.With(security.Passive)
		}
		last := len(*keys) - 1
		(*keys)[last] = (*keys)[last].With(security.Active)
		*keys = (*keys)[max(0, last-2):]
	}
	r.write(t)
}

func (r *rotation) told(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch word, rest, _ := strings.Cut(line, " "); word {
	case "published":
		r.published[rest] = true
	case "handled":
		id, key, _ := strings.Cut(rest, " ")
		r.handled[id] = true
		r.keys[key]++
	default:
		r.errors = append(r.errors, line)
	}
}

func (r *rotation) count() (published, handled int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.published), len(r.handled)
}

// Two publishers and two consumers, each a process of its own, go on while the keys that sign and wrap change, five times each; OMNIBUS_ROTATION says for how long
// (5s). Nothing fails, nothing is given up, nothing is lost.
func TestKeysRotateUnderLoad(t *testing.T) {
	const rotations, processes = 5, 4
	length := 5 * time.Second
	if text := os.Getenv("OMNIBUS_ROTATION"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	s := startServer(t, "default")
	b := s.open(t)
	if err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{rotationGroup()}}); err != nil {
		t.Fatal(err)
	}
	r := &rotation{dir: t.TempDir(), published: map[string]bool{}, handled: map[string]bool{}, keys: map[string]int{}}
	r.add(t, 0)
	var stops []func()
	for i := range processes {
		p := rotator{URL: s.address(nil), Keys: filepath.Join(r.dir, "consumer")}
		if i >= processes/2 {
			p.Keys, p.Name = filepath.Join(r.dir, "producer"), fmt.Sprintf("p%d", i)
		}
		stops = append(stops, p.start(t, r.told))
	}
	begin := time.Now()
	for n := 1; n <= rotations; n++ {
		r.add(t, n)
		time.Sleep(2 * rotatorPoll) // what the procedure says: everybody has looked again
		r.activate(t)
		time.Sleep(time.Until(begin.Add(length * time.Duration(n) / rotations)))
	}
	for _, stop := range stops[processes/2:] {
		stop()
	}
	poll.Until(t, "all that was published is handled", func() bool {
		published, handled := r.count()
		return handled == published
	})
	for _, stop := range stops {
		stop()
	}
	published, handled := r.count()
	dead := len(adaptertest.DeadLetters(t, b, "orders", "billing"))
	if handled != published || published < 100 || dead > 0 || len(r.errors) > 0 {
		t.Errorf("%d were published, %d handled, %d given up; %d errors, such as %q", published, handled, dead, len(r.errors), r.errors[:min(len(r.errors), 3)])
	}
	if len(r.keys) != rotations+1 {
		t.Errorf("messages were signed with %v, want %d keys", r.keys, rotations+1)
	}
	t.Logf("%v, %d processes: %d messages published and handled, by key %v", time.Since(begin).Round(time.Second), processes, published, r.keys)
}
