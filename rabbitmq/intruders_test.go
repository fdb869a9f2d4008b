package rabbitmq_test

import (
	"context"
	"testing"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/rabbitmq"
)

// with is the address of somebody who is not quite who gets in.
func (s *server) with(change func(p *containers.Params)) string {
	p := s.Params
	change(&p)
	return s.addressOf(p, nil)
}

// intruders are those that the variant turns away, and what neither they nor we want to read anywhere.
func (s *server) intruders(t *testing.T) (all map[conformance.Intruder]func(context.Context, *pubsub.Options) (*pubsub.Broker, error), secrets []string) {
	t.Helper()
	opens := func(p containers.Params) func(context.Context, *pubsub.Options) (*pubsub.Broker, error) {
		if p.CertFile == "" {
			p.Mechanism = ""
		}
		address := s.addressOf(p, nil)
		return func(ctx context.Context, opts *pubsub.Options) (*pubsub.Broker, error) {
			return rabbitmq.Open(ctx, address, opts)
		}
	}
	all, secrets = adaptertest.Intruders(t, s.Params, opens)
	if s.Params.CertFile == "" && s.Params.User == "" { // guest's password is no secret, and another one does not get in
		p := s.Params
		p.User, p.Password = "guest", adaptertest.Guess
		all[conformance.WrongPassword] = opens(p)
		secrets = append(secrets, adaptertest.Guess)
	}
	return all, secrets
}
