package conformance_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/pubsub"
)

// onNetwork is the memory broker with what only brokers with a network have, simulated: connections that break, followers, other clients, a doorman. The report on memory does not
// count it; mutants are tried on it.
func onNetwork() conformance.Harness {
	h := onMemory()
	fresh := h.Fresh
	h.Fresh = func() conformance.Harness {
		h := fresh()
		bare := h
		n, driver := newNetwork(), h.Driver
		h.Driver = func(ctx context.Context) (pubsub.Driver, error) {
			d, err := driver(ctx)
			return n.over(d), err
		}
		h.Faults = []conformance.Fault{n.halfOpen()}
		h.Replicas = func(context.Context, string) (conformance.Fault, conformance.Fault, error) {
			return n.pauseFollowers(), n.wipeLeader(bare), nil
		}
		h.ForeignPublish = func(ctx context.Context, topic string, m pubsub.Message) (pubsub.Headers, error) {
			d, err := driver(ctx)
			if err != nil {
				return nil, err
			}
			defer func() { _ = d.Close(ctx) }()
			return m.Headers, writeRaw(ctx, d, topic, m)
		}
		h.Secrets = []string{"pa55/word", "wr0ng/word"}
		h.Intruders = map[conformance.Intruder]func(context.Context, *pubsub.Options) (*pubsub.Broker, error){}
		for _, who := range []conformance.Intruder{conformance.WrongCA, conformance.NoCertificate, conformance.WrongPassword} {
			h.Intruders[who] = func(context.Context, *pubsub.Options) (*pubsub.Broker, error) { // the server in memory knows no credentials
				return nil, &pubsub.Error{Op: "open", Broker: "memory", Code: pubsub.ErrUnauthenticated, Err: errors.New("there is a doorman: " + string(who))}
			}
		}
		return h
	}
	return h
}

// writeRaw stores a message past the engine, as it is.
func writeRaw(ctx context.Context, d pubsub.Driver, topic string, m pubsub.Message) (err error) {
	p, err := d.OpenProducer(ctx, pubsub.ProducerSpec{MaxPending: 1}, func(rs []pubsub.Result) { err = rs[0].Err })
	if err != nil {
		return err
	}
	if _, sendErr := p.Send(ctx, []pubsub.Out{{Seq: 1, To: pubsub.Place{Topic: topic}, Msg: &m}}); sendErr != nil {
		return sendErr
	}
	if closeErr := p.Close(ctx); closeErr != nil {
		return closeErr
	}
	return err
}

// picked runs only those properties, and takes one that is not run for a failure.
type picked struct {
	*testing.T
	names string
}

func (p picked) Run(name string, f func(picked)) bool {
	if !slices.Contains(strings.Fields(p.names), name) {
		return true
	}
	return p.T.Run(name, func(t *testing.T) { f(picked{t, p.names}) })
}

func (p picked) Skipf(format string, args ...any) {
	p.Helper()
	p.Errorf(format, args...)
}

// What the suite asks of brokers with a network holds on the simulated one: there its mutants are the only fault.
func TestNetwork(t *testing.T) {
	h := onNetwork()
	h.Wrap = func(t conformance.T, f func()) { synctest.Test(t.(picked).T, func(*testing.T) { f() }) }
	conformance.Run(picked{t, "Faults/HalfOpen Fidelity/ForeignMessages Security/TLS Security/MutualTLS Security/WrongCA Security/WrongPassword Security/CredentialsHidden"}, h)
	fresh := h.Fresh
	h.Fresh = func() conformance.Harness {
		one := fresh()
		open := one.Driver
		one.Driver = func(ctx context.Context) (pubsub.Driver, error) {
			d, err := open(ctx)
			return cluster{d.(netDriver)}, err
		}
		return one
	}
	conformance.Run(picked{t, "Delivery/Replicated"}, h)
}

// A cluster says that it has followers.
type cluster struct{ netDriver }

func (c cluster) Capabilities() pubsub.Capabilities {
	all := c.netDriver.Capabilities()
	all.Durability = pubsub.Replicated
	return all
}
