package dlq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

func TestEdit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		published := killThese(t, b, billing(), pubsub.Message{ID: "m", Key: "k", Payload: []byte("bad"), Headers: headers("a", "1", "a", "2")})
		q := dlq.Open(b, "orders", "billing")
		r := list(t, q, dlq.Filter{})[0]
		mend := func(m *pubsub.Message) error { m.Payload = []byte("good"); return nil }
		id, err := q.Edit(t.Context(), r.ID, dlq.Edit{Allow: true, Change: mend, Note: dlq.Note{By: "ann", Why: "a typing error"}})
		if err != nil || id == r.ID {
			t.Fatalf("%q, %v", id, err)
		}
		original, copied := list(t, q, dlq.Filter{IDs: []string{r.ID}})[0], list(t, q, dlq.Filter{IDs: []string{id}})[0]
		if original.State != dlq.StateDiscarded || original.StateBy != "ann" || string(original.Message.Payload) != "bad" {
			t.Errorf("%+v", original)
		}
		if copied.State != dlq.StateOpen || copied.EditOf != r.ID || copied.Message.ID == "m" || copied.Fingerprint != r.Fingerprint || copied.Topic != "orders" ||
			copied.Error != r.Error || !copied.LastFailed.Equal(r.LastFailed) || copied.Bad != nil {
			t.Errorf("%+v", copied)
		}
		var in inbox
		subscribe(t, b, billing(), in.handle)
		if rep := replay(t, q, dlq.Filter{}, dlq.Replay{}); rep.Replayed != 1 {
			t.Errorf("%+v", rep)
		}
		settle(t, b, billing())
		want := published["m"]
		want.ID, want.Payload, want.Time = copied.Message.ID, []byte("good"), copied.Message.Time
		same(t, in.all()[0], want, "1")
		wantStates(t, q, map[dlq.State]int{dlq.StateDiscarded: 1, dlq.StateResolved: 1})
	})
}

func TestEditRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b := newProcess(t, memory.NewServer(memory.Config{}))
		defer b.Close()
		killThese(t, b, billing(), pubsub.Message{ID: "plain"}, pubsub.Message{ID: "signed", Headers: headers("Omnisig", "x")},
			pubsub.Message{ID: "encrypted", Headers: headers("omnienc", "x")}, pubsub.Message{ID: "undecodable"})
		p.stray = func(r *pubsub.Record) {
			if r.Msg.ID == "undecodable" {
				r.Bad = errDeclined
			}
		}
		q := dlq.Open(b, "orders", "billing")
		ids := map[string]string{"none": "none"}
		for _, r := range list(t, q, dlq.Filter{}) {
			ids[r.Message.ID] = r.ID
		}
		nothing := func(*pubsub.Message) error { return nil }
		for name, c := range map[string]struct {
			id   string
			o    dlq.Edit
			want pubsub.Code
		}{
			"not allowed":      {"plain", dlq.Edit{Change: nothing}, pubsub.ErrDenied},
			"no change":        {"plain", dlq.Edit{Allow: true}, pubsub.ErrInvalid},
			"an error":         {"plain", dlq.Edit{Allow: true, Change: func(*pubsub.Message) error { return errDeclined }}, pubsub.ErrRefused},
			"not there":        {"none", dlq.Edit{Allow: true, Change: nothing}, pubsub.ErrNotFound},
			"signed":           {"signed", dlq.Edit{Allow: true, Change: nothing}, pubsub.ErrInvalid},
			"encrypted":        {"encrypted", dlq.Edit{Allow: true, Change: nothing}, pubsub.ErrInvalid},
			"undecodable":      {"undecodable", dlq.Edit{Allow: true, Change: nothing}, pubsub.ErrInvalid},
			"a forged history": {"plain", dlq.Edit{Allow: true, Change: func(m *pubsub.Message) error { m.Headers.Set("omnibus-dlq-id", "x"); return nil }}, pubsub.ErrInvalid},
		} {
			if id, err := q.Edit(t.Context(), ids[c.id], c.o); !errors.Is(err, c.want) || id != "" {
				t.Errorf("%s: %q, %v, want %v", name, id, err, c.want)
			}
		}
		if n := len(list(t, q, dlq.Filter{})); n != 4 || len(audit(t, q)) != 0 {
			t.Errorf("%d dead letters, %v", n, audit(t, q))
		}
	})
}

func TestWatch(t *testing.T) {
	for name, stray := range map[string]func(*pubsub.Record){"": nil, "without positions": func(r *pubsub.Record) { r.Pos = pubsub.Position{} }} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, b := newProcess(t, memory.NewServer(memory.Config{}))
				defer b.Close()
				p.stray = stray
				kill(t, b, billing(), 300, 0)
				ctx, stop := context.WithCancel(t.Context())
				var got []string
				ended := make(chan error, 1)
				go func() {
					for r, err := range dlq.Open(b, "orders", "billing").Watch(ctx, dlq.Filter{Type: "new", States: []dlq.State{dlq.StateOpen}}) {
						if err != nil {
							ended <- err
							return
						}
						got = append(got, r.Message.ID)
					}
					ended <- nil
				}()
				pause(t, 5*time.Second)
				var want []string
				for range 3 {
					var msgs []pubsub.Message
					for range 200 {
						id := fmt.Sprintf("new-%03d", len(want))
						want = append(want, id)
						msgs = append(msgs, pubsub.Message{ID: id, Type: "new"}, pubsub.Message{Type: "other"})
					}
					killThese(t, b, billing(), msgs...)
					pause(t, 3*time.Second)
				}
				pause(t, 3*time.Second)
				stop()
				if err := <-ended; err != nil || !slices.Equal(got, want) {
					t.Errorf("%d of %d came, %v", len(got), len(want), err)
				}
			})
		})
	}
}

func TestPurge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b := newProcess(t, memory.NewServer(memory.Config{}))
		defer b.Close()
		kill(t, b, billing(), 30, 0)
		pause(t, time.Hour)
		half := time.Now()
		killThese(t, b, billing(), pubsub.Message{ID: "late 1"}, pubsub.Message{ID: "late 2"})
		q := dlq.Open(b, "orders", "billing")
		if _, err := q.Discard(t.Context(), dlq.Filter{Before: half}, dlq.Note{}); err != nil {
			t.Fatal(err)
		}
		plan, err := q.PlanPurge(t.Context(), half, dlq.Note{By: "ann", Why: "they are old"})
		if err != nil || plan.Count != 30 || plan.States[dlq.StateDiscarded] != 30 || len(plan.Sample) != 10 || !plan.Last.Before(half) {
			t.Fatalf("%+v, %v", plan, err)
		}
		if err := plan.Run(t.Context(), 29); !errors.Is(err, pubsub.ErrInvalid) || len(list(t, q, dlq.Filter{})) != 32 {
			t.Errorf("not confirmed: %v", err)
		}
		killThese(t, b, billing(), pubsub.Message{ID: "late 3"}) // meanwhile
		if err := plan.Run(t.Context(), 30); err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, r := range list(t, q, dlq.Filter{}) {
			left = append(left, r.Message.ID)
		}
		if fmt.Sprint(left) != "[late 1 late 2 late 3]" {
			t.Errorf("%v are left", left)
		}
		entries := audit(t, q)
		if last := entries[len(entries)-1]; last.Operation != dlq.OpPurge || last.By != "ann" || last.Total != 30 {
			t.Errorf("%+v", last)
		}
		if none, err := q.PlanPurge(t.Context(), half, dlq.Note{}); err != nil || none.Count != 0 || none.Run(t.Context(), 0) != nil {
			t.Errorf("%+v, %v", none, err)
		}
		p.stray = func(r *pubsub.Record) { r.Pos = pubsub.Position{} }
		if _, err := q.PlanPurge(t.Context(), time.Time{}, dlq.Note{}); !errors.Is(err, pubsub.ErrUnsupported) {
			t.Error(err)
		}
		if _, err := dlq.OpenTopic(b, "orders").PlanPurge(t.Context(), time.Time{}, dlq.Note{}); !errors.Is(err, pubsub.ErrUnsupported) {
			t.Error(err)
		}
	})
}

// A purge that the broker cannot do is in no audit record, and one that it refuses is there as such.
func TestAuditOfPurgesThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, cannot := range []bool{true, false} {
			d := memory.NewServer(memory.Config{}).Driver()
			refused := refusesPurge{d, d.(pubsub.Browser), d.(pubsub.Lagger)}
			d = refused
			if cannot {
				d = struct {
					pubsub.Driver
					pubsub.Browser
					pubsub.Lagger
				}{refused.Driver, refused.Browser, refused.Lagger}
			}
			b, err := pubsub.New(t.Context(), d, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			kill(t, b, billing(), 3, 0)
			q := dlq.Open(b, "orders", "billing")
			plan, err := q.PlanPurge(t.Context(), time.Time{}, dlq.Note{By: "ann"})
			if err != nil {
				t.Fatal(err)
			}
			err = plan.Run(t.Context(), 3)
			entries := audit(t, q)
			if cannot {
				if !errors.Is(err, pubsub.ErrUnsupported) || len(entries) != 0 {
					t.Errorf("%v, %+v", err, entries)
				}
				continue
			}
			if !errors.Is(err, pubsub.ErrConflict) || len(entries) != 2 || entries[0].Total != 3 || entries[1].Total != 0 || entries[1].By != "ann" ||
				!strings.HasPrefix(entries[1].Text, "failed: ") {
				t.Errorf("%v, %+v", err, entries)
			}
		}
	})
}

type refusesPurge struct {
	pubsub.Driver
	pubsub.Browser
	pubsub.Lagger
}

func (refusesPurge) Purge(context.Context, pubsub.Place, pubsub.Position) error {
	return pubsub.ErrConflict
}

func (d refusesPurge) Classify(err error) (pubsub.Code, bool) {
	if errors.Is(err, pubsub.ErrConflict) {
		return pubsub.ErrConflict, true
	}
	return d.Driver.Classify(err)
}
