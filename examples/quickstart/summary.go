package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
)

// summary prints what became of the orders.
func (s *session) summary(server string, books *ledger, letters map[string][]dlq.Record, published, worked time.Duration) {
	books.mu.Lock()
	defer books.mu.Unlock()
	n := len(books.confirmed)
	fmt.Fprintf(s.out, "%d orders of %d customers, from %s, to topic %q%s\n\n", len(books.seq), len(books.customers), s.name, s.topic, server)
	fmt.Fprintf(s.out, "published  %d confirmed, %d refused, %d unknown, in %v (%s)\n\n",
		n, books.refused, books.unknown, round(published), rate(n, published))

	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "group\thandled\tretries\tdead letters\tduplicates\tout of order")
	handled := 0
	for _, a := range books.groups {
		handled += len(a.handled)
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\n", a.name, len(a.handled), a.retries, len(letters[a.name]), a.duplicates, a.disorder)
	}
	w.Flush()
	fmt.Fprintf(s.out, "\nhandled    %d in %v (%s), waiting for retries included\n", handled, round(worked), rate(handled, worked))

	fmt.Fprintln(s.out, "\ndead letters")
	w = tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	for _, a := range books.groups {
		for _, c := range causes(letters[a.name]) {
			fmt.Fprintf(w, "  %s\t%d\t%s after %s\t%s\t%s\n", a.name, len(c.ids), c.reason, times(c.attempts), c.err, few(c.ids))
		}
	}
	w.Flush()
}

// A cause is a reason that dead letters have in common.
type cause struct {
	reason, err string
	attempts    int
	ids         []string
}

func causes(letters []dlq.Record) []*cause {
	var list []*cause
	for _, rec := range letters {
		c := cause{reason: rec.Reason, err: rec.Error, attempts: rec.Attempts}
		i := slices.IndexFunc(list, func(x *cause) bool {
			return x.reason == c.reason && x.err == c.err && x.attempts == c.attempts
		})
		if i < 0 {
			i, list = len(list), append(list, &c)
		}
		list[i].ids = append(list[i].ids, rec.Message.ID)
	}
	slices.SortStableFunc(list, func(a, b *cause) int { return cmp.Compare(len(b.ids), len(a.ids)) })
	return list
}

func times(attempts int) string {
	if attempts == 1 {
		return "1 attempt"
	}
	return fmt.Sprint(attempts, " attempts")
}

func few(ids []string) string {
	const show = 3
	if len(ids) <= show {
		return strings.Join(ids, " ")
	}
	return strings.Join(ids[:show], " ") + " …"
}

func rate(n int, d time.Duration) string {
	return fmt.Sprintf("%.0f/s", float64(n)/max(d, time.Microsecond).Seconds())
}

func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(10 * time.Millisecond)
}
