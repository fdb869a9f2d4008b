package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	headerSourceTopic = "omnibus-dlq-source-topic" // of a dead letter: where its message was given up
	headerEncrypted   = "omnienc"

	skew = time.Minute // of clocks: what services accept that say nothing else
)

// A verification says who has signed a message, or why nobody knows.
type verification struct {
	ID        text           `json:"id,omitempty"`
	Topic     text           `json:"topic"`
	Verified  bool           `json:"verified"`
	Why       string         `json:"why,omitempty"` // it is not
	Producer  string         `json:"producer,omitempty"`
	Key       string         `json:"key,omitempty"`
	Suite     security.Suite `json:"suite,omitempty"`
	Issued    *time.Time     `json:"issued,omitempty"`
	Expires   *time.Time     `json:"expires,omitempty"`
	Encrypted bool           `json:"encrypted,omitempty"`
}

func (a *app) keysVerifyCommand() *cobra.Command {
	var topic string
	c := &cobra.Command{
		Use:   "verify FILE [MESSAGES]",
		Short: "Tell who has signed stored messages, or why they would be refused",
		Long: `verify reads lines of sub --json or of dlq export, from the file MESSAGES or from standard input, and says of each who has signed it, with which key and when,
or why a service with this keyring would refuse it. A message with a revoked key, or whose time is over, is refused, and its signer is named all the same.
Nothing is decrypted. It exits with 3 when any message is refused.

A dead letter was signed for the topic that its message was given up in. --topic names another, for messages that were copied from elsewhere.`,
		Example: "  omnibus keys verify billing.keys signed.jsonl\n  omnibus keys verify billing.keys --json < signed.jsonl",
		Args:    args(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			v, err := newVerifier(args[0], topic, a.now)
			if err != nil {
				return err
			}
			in := a.in
			if len(args) == 2 {
				f, err := os.Open(args[1])
				if err != nil {
					return usage(err, "name a file that sub --json or dlq export has written")
				}
				defer f.Close()
				in = f
			}
			n, all, refused := 0, 0, 0
			err = feed(c.Context(), linesOf(in), func(line []byte) error {
				if n++; len(bytes.TrimSpace(line)) == 0 {
					return nil
				}
				said, err := v.line(c.Context(), line)
				if err != nil {
					return usage(fmt.Errorf("line %d: %w", n, err), "omnibus sub --json and omnibus dlq export write such lines")
				}
				if all++; !said.Verified {
					refused++
				}
				if a.out.json {
					return a.out.value(said)
				}
				return a.out.write(a.out.verification(said))
			})
			if err == nil && refused > 0 {
				err = &foundError{fmt.Sprintf("%d of %s would be refused", refused, counted(all, "message"))}
			}
			return err
		},
	}
	c.Flags().StringVar(&topic, "topic", "", "that the messages were signed for (default: the one that each was in)")
	return c
}

// verification is one for people: a line.
func (o *output) verification(v verification) string {
	signed := ""
	if v.Producer != "" {
		signed = fmt.Sprintf("signed by %s with %s (%s) at %s", printable(v.Producer, false), printable(v.Key, false), v.Suite, when(v.Issued))
	}
	what := o.paint(bold, printable(string(v.Topic), false)) + " " + printable(string(v.ID), false) + ": "
	switch {
	case v.Verified:
		return what + signed + "\n"
	case signed != "":
		signed = "; " + signed
	}
	return what + o.paint(red, "refused") + ": " + v.Why + signed + "\n"
}

// A verifier verifies what was signed long ago: whether its time is over is looked at last, so that its signer is known.
type verifier struct {
	accepted, revoked pubsub.Middleware // the keyring, and the same as if nothing in it were revoked
	topic             string
	now               func() time.Time
}

func newVerifier(path, topic string, now func() time.Time) (*verifier, error) {
	keys, err := readKeys(path)
	if err != nil {
		return nil, err
	}
	layer := func(keys []security.Key) (pubsub.Middleware, error) {
		ring, err := security.NewKeyring(keys...)
		m := security.Sign(security.SignOptions{Keys: ring, MaxSkew: math.MaxInt64})
		return m, errors.Join(err, m.Err)
	}
	v := &verifier{topic: topic, now: now}
	if v.accepted, err = layer(keys); err != nil {
		return nil, err
	}
	for i, k := range keys {
		if k.Status == security.Revoked {
			keys[i] = k.With(security.Passive)
		}
	}
	v.revoked, err = layer(keys)
	return v, err
}

// line verifies the message of a line.
func (v *verifier) line(ctx context.Context, line []byte) (verification, error) {
	m, topic, bad, err := storedMessage(line)
	if err != nil {
		return verification{}, err
	}
	if from := m.Headers.Get(headerSourceTopic); from != "" {
		topic = from
	}
	if v.topic != "" {
		topic = v.topic
	}
	said := verification{ID: text(m.ID), Topic: text(topic), Encrypted: m.Headers.Get(headerEncrypted) != ""}
	switch {
	case bad:
		said.Why = "it cannot be decoded"
		return said, nil
	case topic == "":
		return said, errors.New("it does not say which topic it was in: --topic does")
	}
	refusal := said.take(ctx, v.accepted, m, topic)
	if errors.Is(refusal, security.ErrUnknownKey) && said.take(ctx, v.revoked, m, topic) == nil {
		refusal = errRevoked
	}
	if refusal == nil && (said.Issued.After(v.now().Add(skew)) || said.Expires != nil && said.Expires.Before(v.now().Add(-skew))) {
		refusal = security.ErrExpired
	}
	if said.Verified = refusal == nil; refusal != nil {
		said.Why = refusal.Error()
	}
	return said, nil
}

var errRevoked = errors.New("its key is revoked")

// take notes what a signature says that is true; else it returns why it is not.
func (s *verification) take(ctx context.Context, layer pubsub.Middleware, m pubsub.Message, topic string) (refusal error) {
	err := layer.Incoming(func(ctx context.Context, _ *pubsub.Delivery) error {
		from, _ := security.From(ctx)
		s.Producer, s.Key, s.Suite, s.Issued, s.Expires = from.Producer, from.Key, from.Suite, known(from.Issued), known(from.Expires)
		return nil
	})(ctx, &pubsub.Delivery{Message: m, Topic: topic})
	if why, ok := errors.AsType[security.Refusal](err); ok {
		return why
	}
	return err
}

// A letterLine is a line of dlq export.
type letterLine struct {
	Schema      string `json:"schema"`
	Undecodable string `json:"undecodable"`
	Message     struct {
		ID          text       `json:"id"`
		Type        text       `json:"type"`
		Key         text       `json:"key"`
		ContentType text       `json:"content_type"`
		Time        time.Time  `json:"time"`
		Payload     []byte     `json:"payload"`
		Headers     []struct { // Kind is a number here
			Name  text              `json:"name"`
			Value text              `json:"value"`
			Kind  pubsub.HeaderKind `json:"kind"`
		} `json:"headers"`
	} `json:"message"`
}

// storedMessage reads a line of sub --json, or of dlq export.
func storedMessage(line []byte) (m pubsub.Message, topic string, bad bool, err error) {
	var letter letterLine
	if err := json.Unmarshal(line, &letter); err == nil && letter.Schema != "" {
		if letter.Schema != "omnibus.deadletter/1" {
			return m, "", false, fmt.Errorf("its schema is %q, which is not known", letter.Schema)
		}
		x := &letter.Message
		m = pubsub.Message{ID: string(x.ID), Type: string(x.Type), Key: string(x.Key), ContentType: string(x.ContentType), Time: x.Time, Payload: x.Payload}
		for _, h := range x.Headers {
			m.Headers = append(m.Headers, pubsub.Header{Name: string(h.Name), Value: string(h.Value), Kind: h.Kind})
		}
		return m, "", letter.Undecodable != "", nil
	}
	in, err := readMessage(line)
	if err != nil {
		return m, "", false, err
	}
	m, err = in.pubsub()
	return m, string(in.Topic), in.Bad != "", err
}
