package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/omnibus-go/omnibus/pubsub"
)

type pubFlags struct {
	key, id, typ, contentType string
	headers                   []string
	delay, ttl                time.Duration
	priority                  uint8
	lines, jsonl, dedup       bool
}

func (a *app) pubCommand() *cobra.Command {
	var f pubFlags
	c := &cobra.Command{
		Use:   "pub TOPIC [PAYLOAD]",
		Short: "Publish messages, and wait until the broker has them",
		Long: `pub publishes the payload, or what it reads from standard input: all of it as one payload, with --lines each line, with --jsonl each line as a
message such as sub --json writes. What a line does not say is taken from the flags. Where a message came from (its topic, group, position) is not
used: TOPIC counts.

Messages do not pass the middleware of the configuration, which needs the service's program: where that changes what travels (compress, own, layers
of security), a warning on standard error says so.

It ends once the broker has confirmed each message, or said why not. The topic must exist: see ensure. An interrupt stops the reading; what was
read by then is still published.

With --json it writes a line a message: topic, id, key, position where the broker says one, and error where it was not stored.`,
		Example: `  omnibus pub orders '{"n":1}' --key alice --type order.placed --header source=cli
  omnibus pub orders --lines < payloads.txt
  omnibus pub orders --jsonl < messages.jsonl`,
		Args: args(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case f.lines && f.jsonl:
				return usageOf(c, errors.New("--lines and --jsonl exclude each other"))
			case len(args) == 2 && (f.lines || f.jsonl):
				return usageOf(c, errors.New("--lines and --jsonl read standard input: there can be no PAYLOAD"))
			}
			base, err := f.message()
			if err != nil {
				return usageOf(c, err)
			}
			a.warnOfLayers(args[0], "", "what is published here does not pass them")
			return a.opened(c, nil, func(ctx context.Context, b *pubsub.Broker) error {
				publisher, err := b.Publisher(pubsub.PublisherOptions{Timeout: a.timeout, DedupByID: f.dedup})
				if err != nil {
					return err
				}
				p := a.publish(publisher, args[0])
				if len(args) == 2 {
					base.Payload = []byte(args[1])
					p.send(ctx, base)
					return p.end()
				}
				return errors.Join(f.read(ctx, a.in, base, p.send), p.end())
			})
		},
	}
	fs := c.Flags()
	fs.StringVarP(&f.key, "key", "k", "", "messages of one key stay in order")
	fs.StringVar(&f.id, "id", "", "of the message (default: one is made)")
	fs.StringVar(&f.typ, "type", "", "what the payload is, such as order.placed")
	fs.StringVar(&f.contentType, "content-type", "", "media type of the payload")
	fs.StringArrayVarP(&f.headers, "header", "H", nil, "name=value; may be repeated")
	fs.DurationVar(&f.delay, "delay", 0, "deliver it no earlier than this from now")
	fs.DurationVar(&f.ttl, "ttl", 0, "drop it if it is not delivered within this")
	fs.Uint8Var(&f.priority, "priority", 0, "0 = normal to 9 = first")
	fs.BoolVar(&f.lines, "lines", false, "each line of standard input is a payload")
	fs.BoolVar(&f.jsonl, "jsonl", false, "each line of standard input is a message in JSON")
	fs.BoolVar(&f.dedup, "dedup", false, "a message whose ID was stored within the broker's window is not stored twice")
	return c
}

// message is what the flags say.
func (f *pubFlags) message() (pubsub.Message, error) {
	m := pubsub.Message{ID: f.id, Key: f.key, Type: f.typ, ContentType: f.contentType, Delay: f.delay, TTL: f.ttl, Priority: f.priority}
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, "=")
		if !ok {
			return m, errors.New("a --header is name=value")
		}
		m.Headers.Add(name, value)
	}
	return m, nil
}

// read hands over what standard input has, until its end or that of ctx.
func (f *pubFlags) read(ctx context.Context, in io.Reader, base pubsub.Message, send func(context.Context, pubsub.Message)) error {
	next := linesOf(in)
	if !f.lines && !f.jsonl {
		next = wholeOf(in)
	}
	n := 0
	return feed(ctx, next, func(part []byte) error {
		n++
		m := base
		m.Payload = part
		if f.jsonl {
			if len(part) == 0 {
				return nil
			}
			var err error
			if m, err = parseLine(part, base); err != nil {
				return usage(fmt.Errorf("line %d of standard input: %w", n, err), "omnibus sub --json writes such lines")
			}
		}
		send(ctx, m)
		return nil
	})
}

// parseLine reads a message, and takes from base what it does not say.
func parseLine(line []byte, base pubsub.Message) (pubsub.Message, error) {
	in, err := readMessage(line)
	if err != nil {
		return base, err
	}
	m, err := in.pubsub()
	if err != nil {
		return base, err
	}
	for _, f := range []struct{ own, from *string }{
		{&m.ID, &base.ID}, {&m.Key, &base.Key}, {&m.Type, &base.Type}, {&m.ContentType, &base.ContentType},
	} {
		if *f.own == "" {
			*f.own = *f.from
		}
	}
	m.Delay = base.Delay
	if m.TTL == 0 {
		m.TTL = base.TTL
	}
	if m.Priority == 0 {
		m.Priority = base.Priority
	}
	m.Headers = append(m.Headers, base.Headers...)
	return m, nil
}

// A publishing tells what became of the messages of a pub.
type publishing struct {
	a     *app
	p     pubsub.Publisher
	topic string

	room    chan struct{} // taken by each message until it is told of
	answers chan answer   // has room for all of these: what the engine calls must not block
	told    chan struct{} // closed when all were

	stored  int
	last    pubsub.Receipt
	refused int
	first   error
}

type answer struct {
	pubsub.Receipt
	err error
}

// A receipt is what pub says of a message.
type receipt struct {
	Topic    string     `json:"topic"`
	ID       text       `json:"id"`
	Key      text       `json:"key,omitempty"`
	Position string     `json:"position,omitempty"`
	Error    *complaint `json:"error,omitempty"`
}

const pubWindow = 4096

func (a *app) publish(p pubsub.Publisher, topic string) *publishing {
	t := &publishing{a: a, p: p, topic: topic, room: make(chan struct{}, pubWindow), answers: make(chan answer, pubWindow), told: make(chan struct{})}
	go t.tell()
	return t
}

// send hands a message over. Once it is read it is published, also after an interrupt.
func (t *publishing) send(ctx context.Context, m pubsub.Message) {
	t.room <- struct{}{}
	t.p.PublishAsync(context.WithoutCancel(ctx), t.topic, m, func(r pubsub.Receipt, err error) { t.answers <- answer{r, err} })
}

func (t *publishing) tell() {
	defer close(t.told)
	for r := range t.answers {
		line := receipt{Topic: r.Topic, ID: text(r.ID), Key: text(r.Key), Position: r.Position.String()}
		if r.err != nil {
			t.refused++
			if t.first == nil {
				t.first = r.err
			}
			c := describe(r.err)
			line.Error = &c
		} else {
			t.stored++
			t.last = r.Receipt
		}
		if t.a.out.json {
			_ = t.a.out.value(line) // the run ends with it
		}
		t.a.out.setProgress(false, func() string { return fmt.Sprintf("%d published", t.stored) })
		<-t.room
	}
}

// end waits for the answers, and sums them up.
func (t *publishing) end() error {
	for range pubWindow {
		t.room <- struct{}{}
	}
	close(t.answers)
	<-t.told
	if !t.a.out.json {
		switch {
		case t.stored == 1:
			at := ""
			if pos := t.last.Position.String(); pos != "" {
				at = " at " + pos
			}
			t.a.out.sayf("published to %s: %s%s\n", t.topic, printable(t.last.ID, false), at)
		case t.stored > 1, t.refused == 0:
			t.a.out.sayf("published %d messages to %s\n", t.stored, t.topic)
		}
	}
	if t.refused > 1 {
		return fmt.Errorf("%d of %d messages were not published; the first: %w", t.refused, t.refused+t.stored, t.first)
	}
	return t.first
}
