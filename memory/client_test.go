package memory_test

import (
	"context"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A client speaks to a server through the driver alone, so that a test decides what is sent again and what is settled when.
type client struct {
	pubsub.Driver
	t     *testing.T
	prod  pubsub.Producer
	seq   uint64
	fates []pubsub.Result
}

func newClient(t *testing.T, s *memory.Server) *client {
	t.Helper()
	c := &client{Driver: s.Driver(), t: t}
	prod, err := c.OpenProducer(t.Context(), pubsub.ProducerSpec{}, func(rs []pubsub.Result) { c.fates = append(c.fates, rs...) })
	if err != nil {
		t.Fatal(err)
	}
	c.prod = prod
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// ensure makes a topic and a group of it; "" = none.
func (c *client) ensure(spec pubsub.TopicSpec, group string, order pubsub.Order) error {
	topo := pubsub.Topology{Topics: []pubsub.TopicSpec{spec}}
	if group != "" {
		topo.Groups = []pubsub.Subscription{{Topic: spec.Name, Group: group, Order: order, AckWait: time.Minute}}
	}
	return c.Ensure(c.t.Context(), topo, pubsub.Create)
}

func (c *client) mustEnsure(spec pubsub.TopicSpec, group string, order pubsub.Order) {
	c.t.Helper()
	if err := c.ensure(spec, group, order); err != nil {
		c.t.Fatal(err)
	}
}

// send sends one message and returns its fate.
func (c *client) send(o pubsub.Out) pubsub.Result {
	c.t.Helper()
	c.seq++
	o.Seq = c.seq
	n := len(c.fates)
	if _, err := c.prod.Send(c.t.Context(), []pubsub.Out{o}); err != nil {
		c.t.Fatal(err)
	}
	if len(c.fates) != n+1 {
		c.t.Fatalf("%d answers to one message", len(c.fates)-n)
	}
	return c.fates[n]
}

func (c *client) mustSend(to pubsub.Place, msgs ...pubsub.Message) {
	c.t.Helper()
	for _, m := range msgs {
		if r := c.send(pubsub.Out{To: to, Msg: &m}); r.Err != nil {
			c.t.Fatal(r.Err)
		}
	}
}

// fill sends messages of 1000 bytes, as they count, until the broker refuses one, and returns how many it took.
func (c *client) fill(to pubsub.Place) (n int) {
	c.t.Helper()
	for ; n < 10_000; n++ {
		if r := c.send(pubsub.Out{To: to, Msg: &pubsub.Message{Payload: make([]byte, 800)}}); r.Err != nil {
			if code, final := c.Classify(r.Err); code != pubsub.ErrExhausted || !final {
				c.t.Fatalf("got %v", r.Err)
			}
			return n
		}
	}
	return n
}

func (c *client) open(from pubsub.Place, order pubsub.Order) *reader {
	c.t.Helper()
	src, err := c.OpenSource(c.t.Context(), pubsub.SourceSpec{From: from, Order: order, AckWait: time.Minute, MaxInFlight: 1 << 20, Manage: pubsub.Create})
	if err != nil {
		c.t.Fatal(err)
	}
	return &reader{Source: src, t: c.t}
}

func (c *client) browse(p pubsub.Place, from pubsub.Position) (all []pubsub.Record) {
	c.t.Helper()
	for r, err := range c.Driver.(pubsub.Browser).Browse(c.t.Context(), p, from) {
		if err != nil {
			c.t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// A reader is a member of a group.
type reader struct {
	pubsub.Source
	t *testing.T
}

// take receives what there is without waiting, at most n.
func (r *reader) take(n int) (all []pubsub.Record) {
	r.t.Helper()
	for len(all) < n {
		ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Millisecond)
		buf := make([]pubsub.Record, n-len(all))
		got, events, err := r.Recv(ctx, buf, 1<<30)
		cancel()
		all = append(all, buf[:got]...)
		if err != nil || got == 0 && len(events) == 0 {
			break
		}
	}
	return all
}

func (r *reader) settle(as pubsub.SettleAs, recs ...pubsub.Record) {
	r.t.Helper()
	list := make([]pubsub.Settlement, len(recs))
	for i := range recs {
		list[i] = pubsub.Settlement{Token: recs[i].Token, As: as, Delay: time.Hour}
	}
	errs := make([]error, len(recs))
	if err := r.Settle(r.t.Context(), list, errs); err != nil {
		r.t.Fatal(err)
	}
	for _, err := range errs {
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

func ids(recs []pubsub.Record) (all []string) {
	for _, r := range recs {
		all = append(all, r.Msg.ID)
	}
	return all
}
