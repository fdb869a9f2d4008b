package dlq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// awkward are messages of any bytes.
func awkward() (msgs []pubsub.Message) {
	texts := []string{"", "plain", "\x00\xff\xfe", "<&>\u2028\"\\", "{\"base64\":\"x\"}", "\xed\xa0\x80", strings.Repeat("long ", 5000)}
	for i, s := range texts {
		msgs = append(msgs, pubsub.Message{
			ID: fmt.Sprint("m-", i), Type: s, Key: s, ContentType: s, Payload: [][]byte{nil, {}, []byte(s)}[i%3], Time: time.Unix(1_000_000_000, 123456789).UTC(),
			Headers: pubsub.Headers{
				{Name: "a", Value: s}, {Name: "A", Value: "1"}, {Name: "a", Value: ""}, {Name: "odd name:\xff\n", Value: s},
				{Name: "n", Value: "7", Kind: pubsub.HeaderInt}, {Name: "none", Kind: pubsub.HeaderNull},
			},
		})
	}
	return msgs
}

func stored(t *testing.T, q *dlq.Queue) (all []pubsub.Message) {
	t.Helper()
	for _, r := range list(t, q, dlq.Filter{}) {
		all = append(all, r.Stored)
	}
	return all
}

func TestExportAndImport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, to := memory.New(nil), memory.New(nil)
		defer from.Close()
		defer to.Close()
		killThese(t, from, billing(), awkward()...)
		q := dlq.Open(from, "orders", "billing")
		if _, err := q.Discard(t.Context(), dlq.Filter{Where: func(r *dlq.Record) bool { return r.Message.ID == "m-0" }}, dlq.Note{}); err != nil {
			t.Fatal(err)
		}
		want := stored(t, q)
		var file bytes.Buffer
		n, err := q.Export(t.Context(), &file, dlq.Filter{})
		if err != nil || n != len(want) || bytes.Count(file.Bytes(), []byte{'\n'}) != n {
			t.Fatalf("%d, %v", n, err)
		}
		if err := to.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{billing()}}); err != nil {
			t.Fatal(err)
		}
		other := dlq.Open(to, "orders", "billing")
		for i, c := range []struct {
			q    *dlq.Queue
			want dlq.Imported
		}{{other, dlq.Imported{Stored: n}}, {other, dlq.Imported{There: n}}, {q, dlq.Imported{There: n}}} {
			// twice in one file is once
			got, err := c.q.Import(t.Context(), strings.NewReader("\n"+file.String()+strings.TrimSuffix(file.String(), "\n")), dlq.Note{By: "ann"})
			c.want.There += n
			if err != nil || len(got.Invalid) > 0 || got.Stored != c.want.Stored || got.There != c.want.There {
				t.Errorf("import %d: %+v, %v", i, got, err)
			}
			if got := stored(t, c.q); !reflect.DeepEqual(got, want) {
				t.Errorf("import %d:\n got %#v\nwant %#v", i, got, want)
			}
		}
		var again bytes.Buffer
		if _, err := other.Export(t.Context(), &again, dlq.Filter{}); err != nil || again.String() != file.String() {
			t.Errorf("the export of the import differs, %v", err)
		}
		entries := audit(t, other)
		if len(entries) != 1 || entries[0].Operation != dlq.OpImport || entries[0].By != "ann" || len(entries[0].IDs) != n {
			t.Errorf("%+v", entries)
		}
		wantStates(t, other, map[dlq.State]int{dlq.StateOpen: n}) // what became of it is not exported
		var in inbox
		subscribe(t, to, billing(), in.handle)
		if rep := replay(t, other, dlq.Filter{}, dlq.Replay{}); rep.Replayed != n {
			t.Errorf("%+v", rep)
		}
		settle(t, to, billing())
		by := map[string]pubsub.Message{}
		for _, m := range awkward() {
			by[m.ID] = m
		}
		for _, m := range in.all() {
			same(t, m, by[m.ID], "1")
		}
	})
}

// Dead letters of others have no IDs of their own: they are known by what is in them, as often as they are there.
func TestImportOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		for _, topic := range []string{"theirs", "copy"} {
			if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: topic}}}); err != nil {
				t.Fatal(err)
			}
		}
		at := time.Unix(1_000_000_000, 0).UTC()
		for _, payload := range []string{"one", "two", "one"} {
			m := pubsub.Message{ID: "x", Payload: []byte(payload), Time: at, Headers: headers("x-first-death-queue", "q")}
			if err := b.Publish(t.Context(), "theirs", m); err != nil {
				t.Fatal(err)
			}
		}
		from, to := dlq.OpenTopic(b, "theirs"), dlq.OpenTopic(b, "copy")
		var file bytes.Buffer
		if _, err := from.Export(t.Context(), &file, dlq.Filter{}); err != nil {
			t.Fatal(err)
		}
		for i, want := range []dlq.Imported{{Stored: 3}, {There: 3}} {
			if got, err := to.Import(t.Context(), bytes.NewReader(file.Bytes()), dlq.Note{}); err != nil || len(got.Invalid) > 0 || got.Stored != want.Stored || got.There != want.There {
				t.Errorf("import %d: %+v, %v", i, got, err)
			}
		}
		if !reflect.DeepEqual(stored(t, from), stored(t, to)) {
			t.Errorf("%#v\n%#v", stored(t, from), stored(t, to))
		}
	})
}

// A line of more than 100 MiB ended the import: what came behind it was not there.
func TestImportPassesOverLongLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		kill(t, b, billing(), 3, 0)
		q := dlq.Open(b, "orders", "billing")
		var file bytes.Buffer
		if _, err := q.Export(t.Context(), &file, dlq.Filter{}); err != nil {
			t.Fatal(err)
		}
		if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "copy"}}}); err != nil {
			t.Fatal(err)
		}
		long := bytes.NewReader(bytes.Repeat([]byte{'x'}, 101<<20))
		got, err := dlq.OpenTopic(b, "copy").Import(t.Context(), io.MultiReader(long, strings.NewReader("\n"+file.String())), dlq.Note{})
		if err != nil || got.Stored != 3 || len(got.Invalid) != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
		if x := got.Invalid[0]; x.Line != 1 || !errors.Is(x.Err, pubsub.ErrInvalid) || !strings.Contains(x.Err.Error(), "100 MiB") {
			t.Errorf("passed over is %+v", x)
		}
	})
}

func TestImportRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		p, b := newProcess(t, s)
		defer b.Close()
		kill(t, b, billing(), 3, 0)
		q := dlq.Open(b, "orders", "billing")
		p.stray = func(r *pubsub.Record) {
			if r.Msg.ID == "m-00001" {
				r.Bad = errors.New("no header")
			}
		}
		var file bytes.Buffer
		if n, err := q.Export(t.Context(), &file, dlq.Filter{}); err != nil || n != 3 {
			t.Fatalf("%d, %v", n, err)
		}
		p.stray = nil
		other := open(t, memory.NewServer(memory.Config{}), nil)
		defer other.Close()
		if err := other.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{billing()}}); err != nil {
			t.Fatal(err)
		}
		to := dlq.Open(other, "orders", "billing")
		torn := file.String()[:file.Len()-20]
		got, err := to.Import(t.Context(), strings.NewReader("{\"schema\":\"other\"}\n"+torn), dlq.Note{})
		if err != nil || got.Stored != 1 || len(got.Invalid) != 3 || got.Invalid[0].Line != 1 || got.Invalid[1].Line != 3 || !errors.Is(got.Invalid[1].Err, pubsub.ErrInvalid) {
			t.Errorf("%+v, %v", got, err)
		}
		if got, err := dlq.Open(other, "orders", "nobody").Import(t.Context(), &file, dlq.Note{}); err != nil || got.Stored != 0 || len(got.Invalid) != 3 {
			t.Errorf("to a group that is not there: %+v, %v", got, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := to.Import(ctx, strings.NewReader(torn), dlq.Note{}); !errors.Is(err, pubsub.ErrCanceled) {
			t.Error(err)
		}
	})
}

// FuzzImport looks that what can be imported comes out again as it went in.
func FuzzImport(f *testing.F) {
	f.Add("id", "key\xff", []byte("\x00"), "name", "value")
	f.Fuzz(func(t *testing.T, id, key string, payload []byte, name, value string) {
		if name == "" || strings.HasPrefix(name, "omnibus-") {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			b := memory.New(nil)
			defer b.Close()
			m := pubsub.Message{ID: id, Key: key, Payload: payload, Headers: headers(name, value, name, ""), Time: time.Unix(1, 2).UTC()}
			if m.ID == "" {
				m.ID = "x"
			}
			for _, topic := range []string{"a", "b"} {
				if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: topic}}}); err != nil {
					t.Fatal(err)
				}
			}
			if err := b.Publish(t.Context(), "a", m); err != nil {
				return
			}
			var file bytes.Buffer
			from, to := dlq.OpenTopic(b, "a"), dlq.OpenTopic(b, "b")
			if _, err := from.Export(t.Context(), &file, dlq.Filter{}); err != nil {
				t.Fatal(err)
			}
			if got, err := to.Import(t.Context(), &file, dlq.Note{}); err != nil || got.Stored != 1 {
				t.Fatalf("%+v, %v", got, err)
			}
			if !reflect.DeepEqual(stored(t, from), stored(t, to)) {
				t.Errorf("%#v\n%#v", stored(t, from), stored(t, to))
			}
		})
	})
}
