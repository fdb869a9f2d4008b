package conformance

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/conformance/internal/history"
	"github.com/omnibus-go/omnibus/pubsub"
)

// An Intruder is a client that a secured broker turns away, or that turns away from a broker which is not the one that it trusts.
type Intruder string

const (
	WrongCA       Intruder = "a client that trusts another authority" // it has to turn away from the broker
	NoCertificate Intruder = "a client without a certificate"         // where the broker asks for one
	WrongPassword Intruder = "a client with a wrong password"         // or a wrong token, or another key
)

func secured() []Property {
	property := func(name, doc string, run func(*env), needs func(Harness) string) Property {
		return Property{Name: "Security/" + name, Promises: []int{22}, Doc: doc, run: run, needs: needs}
	}
	return append([]Property{
		property("TLS", "Over TLS, which a client with a wrong authority shows to be in use, a run of ordinary traffic loses, doubles and reorders nothing.", overTLS, refuses(WrongCA)),
		property("MutualTLS", "A client that shows its certificate is let in, and one without is refused.", mutualTLS, refuses(NoCertificate)),
		property("WrongCA", "A server with a certificate of another authority is refused.", wrongCA, refuses(WrongCA)),
		property("WrongPassword", "A wrong password is ErrUnauthenticated.", wrongPassword, refuses(WrongPassword)),
		{
			Name: "Security/CredentialsHidden", Promises: []int{22}, run: credentialsHidden, alone: true,
			Doc: "Credentials are in no error, no event and no line of the log, neither when they are refused nor while the broker is away.",
			needs: func(h Harness) string {
				switch {
				case len(h.Secrets) == 0:
					return "Secrets, accounts with passwords"
				case len(h.Intruders) == 0:
					return "Intruders"
				}
				return restarts(h)
			},
		},
	}, attacks()...)
}

// refuses says what a harness lacks to let one in who must stay out.
func refuses(who Intruder) func(Harness) string {
	return func(h Harness) string {
		if h.Intruders[who] == nil {
			return fmt.Sprintf("Intruders, %s", who)
		}
		return ""
	}
}

// intrude opens the broker as somebody who must not get in, and returns what that says.
func (e *env) intrude(who Intruder, opts *pubsub.Options) error {
	ctx, cancel := context.WithTimeout(e.Context(), patience)
	defer cancel()
	b, err := e.openAs(ctx, who, opts)
	if err != nil {
		if e.m != nil && e.m.refusal != nil {
			return e.m.refusal(err)
		}
		return err
	}
	err = b.Ping(ctx) // an adapter may connect when it must
	return errors.Join(err, b.Close())
}

func (e *env) openAs(ctx context.Context, who Intruder, opts *pubsub.Options) (*pubsub.Broker, error) {
	if e.m == nil || e.m.admits != who {
		return e.h.Intruders[who](ctx, opts)
	}
	d, err := e.h.Driver(ctx)
	e.must(err, "connect")
	return pubsub.New(ctx, e.m.over(d), opts)
}

// wantRefused asserts that an intruder is told at once that it is one.
func (e *env) wantRefused(who Intruder) {
	e.Helper()
	const atOnce = 10 * time.Second
	begin := time.Now()
	err := e.intrude(who, nil)
	e.wantCode(err, pubsub.ErrUnauthenticated, "%s opens the broker", who)
	if took := time.Since(begin); took > atOnce {
		e.Errorf("%s was refused after %v, want at once", who, took)
	}
}

// traffic publishes messages of all sizes over several keys, lets some fail once, and has it judged that all come, in order.
func (e *env) traffic() {
	e.Helper()
	p, q, topic, l := e.open(), e.open(), e.topic("a"), e.ledger().ordered("g")
	s := e.sub(topic, "g")
	s.Concurrency, s.Retry.Delays = 4, []time.Duration{50 * time.Millisecond}
	var mu sync.Mutex
	failed := map[string]bool{}
	e.subscribe(q, s, l.handler(q, "g", func(_ context.Context, d *pubsub.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		if !e.caps.Redelivery || d.Type != "again" || failed[d.ID] {
			return nil
		}
		failed[d.ID] = true
		return errOnce
	}))
	msgs := l.messages(enough, 10)
	for i := range msgs {
		switch i % 60 {
		case 10:
			msgs[i].Type = "again"
		case 20: // more than one record of TLS has
			msgs[i].Payload = slices.Repeat([]byte{byte(i), 0, 0xff}, 20_000)
		}
	}
	l.mustPublish(p, topic, msgs...)
	l.await("g")
	l.verify()
}

func overTLS(e *env) {
	e.traffic()
	if err := e.intrude(WrongCA, nil); err == nil {
		e.Errorf("%s opens the broker: its connection is not one of TLS, or nobody looks at the certificate", WrongCA)
	}
}

func mutualTLS(e *env) {
	e.traffic()
	// In TLS 1.3 a client takes the handshake for done before the server has asked for its certificate. What the server then says may be lost with the
	// connection, on which the client is already writing: nobody can tell that from an outage.
	switch err := e.intrude(NoCertificate, nil); {
	case err == nil:
		e.Errorf("%s opens the broker", NoCertificate)
	case !errors.Is(err, pubsub.ErrUnavailable):
		e.wantCode(err, pubsub.ErrUnauthenticated, "%s opens the broker", NoCertificate)
	}
	e.must(e.open().Ping(e.Context()), "ping with a certificate")
}

func wrongCA(e *env) {
	e.traffic()
	e.wantRefused(WrongCA)
	e.must(e.open().Ping(e.Context()), "ping with the right authority")
}

func wrongPassword(e *env) {
	e.traffic()
	e.wantRefused(WrongPassword)
	e.must(e.open().Ping(e.Context()), "ping with the right password")
}

// An eavesdropper reads all that an adapter says to others than the broker. It is a writer for logs.
type eavesdropper struct {
	e       *env
	secrets []string

	mu    sync.Mutex
	heard int
}

func (x *eavesdropper) Write(line []byte) (int, error) {
	x.read("the log", string(line))
	return len(line), nil
}

func (x *eavesdropper) read(where, text string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.heard++
	for _, s := range x.secrets {
		if strings.Contains(text, s) {
			x.e.Errorf("credentials are in %s: %s", where, strings.ReplaceAll(text, s, "<SECRET>"))
		}
	}
}

// err reads an error in all the ways in which it might be printed.
func (x *eavesdropper) err(where string, err error) {
	if err != nil {
		x.read(where, fmt.Sprintf("%v\n%+v\n%#v\n%q", err, err, err, err))
	}
}

// disguises are the ways in which a secret may stand in a URL or a header.
func disguises(secrets []string) (all []string) {
	for _, s := range secrets {
		all = append(all, s, url.QueryEscape(s), url.PathEscape(s), base64.StdEncoding.EncodeToString([]byte(s)))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func credentialsHidden(e *env) {
	const inFlight = 32
	e.traffic()
	x := &eavesdropper{e: e, secrets: disguises(e.h.Secrets)}
	opts := &pubsub.Options{
		Logger: slog.New(slog.NewTextHandler(x, &slog.HandlerOptions{Level: slog.LevelDebug - 4})),
		Use:    []pubsub.Middleware{{Name: "observer", Observe: func(ev pubsub.Event) { x.err("an event", ev.Err) }}},
	}
	for _, who := range slices.Sorted(maps.Keys(e.h.Intruders)) {
		err := e.intrude(who, opts)
		if err == nil {
			e.Errorf("%s opens the broker", who)
		}
		x.err("what "+string(who)+" is told", err)
	}
	p, topic, l := e.openWith(opts), e.topic("b"), e.ledger()
	s := e.sub(topic, "g")
	s.MaxInFlight, s.AckWait = inFlight, 2*time.Second
	c := e.subscribe(p, s, l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(30, 0)...)
	l.await("g")
	before := x.count()
	e.must(e.h.Kill(e.Context()), "kill the broker")
	ctx, cancel := context.WithTimeout(e.Context(), time.Second)
	defer cancel()
	x.err("the error of Ping", p.Ping(ctx))
	lost := l.note(l.message(""))
	err := p.Publish(ctx, topic, lost.msg)
	l.tell(lost, err)
	x.err("the error of Publish", err)
	x.err("the error of Subscribe", subscribeBriefly(ctx, p, e.sub(e.topic("c"), "g")))
	if !e.until(patience, func() bool { return c.State().Reason != nil }) {
		e.Errorf("while the broker is away the consumer's state names no reason: %v", c.State())
	}
	x.err("the consumer's state", c.State().Reason)
	if x.count() == before {
		e.Fatalf(setupPrefix + "the adapter said nothing while the broker was away")
	}
	e.must(e.h.Start(e.Context()), "start the broker")
	l.strikes("g", 1, history.Load{Members: 1, MaxInFlight: inFlight, Publishers: 1, MaxPending: 30})
	l.mustPublish(p, topic, l.messages(30, 0)...)
	l.await("g")
	x.err("the error of Close", p.Close())
	l.verify()
}

func (x *eavesdropper) count() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.heard
}

// subscribeBriefly returns the error of subscribing; what works nevertheless ends with the process.
func subscribeBriefly(ctx context.Context, p *process, s pubsub.Subscription) error {
	_, err := p.Subscribe(ctx, s, func(context.Context, *pubsub.Delivery) error { return nil })
	return err
}
