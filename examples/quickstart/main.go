// Command quickstart publishes orders and lets two services work on them: billing and shipping. Some orders fail; they are
// retried, and what cannot succeed is kept in the dead letters. Then the payment gateway is well again, and what only it has failed is
// replayed. At the end it says what became of every order, and exits with 1 if that does not add up.
//
//	go run ./examples/quickstart                          the orders that come with it, on the broker in the process
//	go run ./examples/quickstart -broker URL my.jsonl     your own, on your broker; - reads standard input
package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/pubsub"
)

//go:embed orders.jsonl
var sample []byte

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C kills
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

var errInterrupted = errors.New("interrupted")

func run(ctx context.Context, args []string, stdin io.Reader, out, errOut io.Writer) int {
	fs := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	fs.SetOutput(errOut)
	fs.Usage = func() {
		fmt.Fprintln(errOut, "usage: quickstart [flags] [orders.jsonl | -]")
		fs.PrintDefaults()
	}
	url := fs.String("broker", "mem://", "the broker's `URL`")
	topic := fs.String("topic", "orders", "the topic to publish to")
	wait := fs.Duration("wait", time.Minute, "how long to wait for the last order")
	verbose := fs.Bool("v", false, "log what the library does")
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case fs.NArg() > 1:
		fs.Usage()
		return 2
	}
	input, name := io.Reader(bytes.NewReader(sample)), "the orders of the example"
	switch path := fs.Arg(0); path {
	case "":
	case "-":
		input, name = stdin, "standard input"
	default:
		f, err := os.Open(path)
		if err != nil {
			fmt.Fprintln(errOut, "quickstart:", err)
			return 1
		}
		defer f.Close()
		input, name = f, path
	}
	opts := &pubsub.Options{
		Service: "quickstart",
		Require: pubsub.Capabilities{Redelivery: true}, // without it there are no retries and no dead letters to show
	}
	if *verbose {
		opts.Logger = slog.New(slog.NewTextHandler(errOut, nil))
	}
	s := session{topic: *topic, wait: *wait, input: input, name: name, out: out, errOut: errOut}
	if err := s.run(ctx, *url, opts); err != nil {
		fmt.Fprintln(errOut, "quickstart:", err)
		return 1
	}
	return 0
}

// A session is one run from the first order to the summary.
type session struct {
	topic, name string
	wait        time.Duration
	input       io.Reader
	out, errOut io.Writer
}

const runHeader = "run" // tells the messages of this run from those that an earlier one left at the broker

func (s *session) run(ctx context.Context, url string, opts *pubsub.Options) (err error) {
	b, err := brokers.Open(ctx, url, opts)
	if pubsub.CodeOf(err) == pubsub.ErrUnavailable {
		return fmt.Errorf("%w\nIs a broker running there? In a clone of this repository `make brokers-up UP=nats` starts one and prints its URL", err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()

	// four partitions: four members of a group could share the work and still keep each customer's order
	err = b.Ensure(ctx, pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: s.topic, Partitions: s.partitions(b)}}})
	if err != nil {
		return err
	}

	id := strconv.FormatInt(time.Now().UnixNano(), 36)
	var bank gateway
	gs := groups(s.topic, &bank)
	books := newLedger(gs[0].sub.Group, gs[1].sub.Group)
	subs, stop := context.WithCancel(ctx)
	defer stop()
	for i, g := range gs {
		if _, err := g.work(subs, b, id, books, books.groups[i]); err != nil {
			return err
		}
	}

	start := time.Now()
	badLines, err := s.publish(ctx, b, id, books)
	if ctx.Err() != nil {
		return errInterrupted
	}
	if err != nil {
		return err
	}
	published := time.Since(start)

	timedOut := time.NewTimer(s.wait)
	defer timedOut.Stop()
	select {
	case <-books.done:
	case <-timedOut.C:
		fmt.Fprintf(s.errOut, "quickstart: not finished after %v\n", s.wait)
	case <-ctx.Done():
	}
	worked := time.Since(start)
	stop()
	// Run returns once what is being handled has been settled.
	if err := b.Run(subs); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return errInterrupted
	}
	letters, err := s.deadLetters(ctx, b, id, gs)
	if err != nil {
		return err
	}
	s.summary(server(b), books, letters, published, worked)
	problems := books.problems(idsOf(letters))
	bank.recovered.Store(true)
	again, err := s.replay(ctx, b, id, gs[0])
	if err != nil {
		return err
	}
	problems = append(problems, again...)
	if badLines > 0 {
		problems = append(problems, fmt.Sprintf("%d lines of the input are no orders", badLines))
	}
	for _, p := range problems {
		fmt.Fprintln(s.errOut, "quickstart:", p)
	}
	if len(problems) > 0 {
		return errors.New("it does not add up")
	}
	fmt.Fprintln(s.out, "\nEvery order was handled or is kept in the dead letters of its group: it adds up.")
	return nil
}

func (s *session) partitions(b *pubsub.Broker) int {
	if b.Capabilities().Partitions {
		return 4
	}
	return 0
}

// publish sends every order without waiting for the one before, and returns when all have their fate.
func (s *session) publish(ctx context.Context, b *pubsub.Broker, id string, books *ledger) (badLines int, err error) {
	done := func(r pubsub.Receipt, err error) { books.sent(r.ID, err) } // one function for all
	n := 0
	err = readOrders(s.input, func(o Order) error {
		m, err := orderPlaced.Message(o)
		if err != nil {
			return err
		}
		m.ID, m.Time = o.ID, o.PlacedAt
		m.Headers.Set(runHeader, id)
		n++
		books.sending(o)
		b.PublishAsync(ctx, s.topic, m, done)
		return ctx.Err()
	}, func(line int, err error) {
		badLines++
		fmt.Fprintf(s.errOut, "%s:%d: %v\n", s.name, line, err)
	})
	if err == nil && n == 0 {
		err = errors.New("no orders")
	}
	if err != nil {
		return badLines, fmt.Errorf("%s: %w", s.name, err)
	}
	if err := b.Flush(ctx); err != nil {
		return badLines, err
	}
	books.publishedAll()
	return badLines, nil
}

// deadLetters reads what the groups gave up on, without taking it away.
func (s *session) deadLetters(ctx context.Context, b *pubsub.Broker, id string, gs []group) (map[string][]dlq.Record, error) {
	letters := map[string][]dlq.Record{}
	for _, g := range gs {
		for rec, err := range dlq.Open(b, s.topic, g.sub.Group).List(ctx, ofRun(id)) {
			if err != nil {
				return nil, err
			}
			letters[g.sub.Group] = append(letters[g.sub.Group], rec)
		}
	}
	return letters, nil
}

// ofRun selects the dead letters of one run.
func ofRun(id string) dlq.Filter { return dlq.Filter{Header: map[string]string{runHeader: id}} }

func idsOf(letters map[string][]dlq.Record) map[string][]string {
	ids := map[string][]string{}
	for group, recs := range letters {
		for _, rec := range recs {
			ids[group] = append(ids[group], rec.Message.ID)
		}
	}
	return ids
}
