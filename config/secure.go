package config

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

// keyring opens a keyring file once, for all layers that name it: then they change their keys at the same time.
func (b *builder) keyring(at, name string) (*security.Keyring, error) {
	path := inFolder(b.name, name)
	if r := b.rings[path]; r != nil {
		return r, nil
	}
	if b.opts.Unbound { // only the service may read it
		return security.NewKeyring()
	}
	opts := security.KeyringOptions{}
	if l := b.plan.options.Logger; l != nil {
		opts.OnReload = func(err error) {
			if err != nil {
				l.Error("changed keyring refused", "keyring", path, "err", err)
				return
			}
			l.Info("keyring changed", "keyring", path)
		}
	}
	r, err := security.OpenKeyring(path, opts)
	if err != nil {
		b.wrongf(at, "`omnibus keys new` makes one; relative paths begin at this file's folder", "%s", b.without(at, path, err))
		return nil, errNoted
	}
	b.rings[path] = r
	return r, nil
}

// policyFile reads an access policy.
func (b *builder) policyFile(at, name string) (*security.Policy, error) {
	path := inFolder(b.name, name)
	data, err := readAll(path)
	var p *security.Policy
	if err == nil {
		p, err = security.DecodePolicy(data)
	}
	if err != nil {
		b.wrongf(at, "it is JSON, as security.Policy says; relative paths begin at this file's folder", "%s", b.without(at, path, err))
		return nil, errNoted
	}
	b.plan.policies[at] = sha256.Sum256(data)
	return p, nil
}

// without is what is wrong with a file, whose path may have come from elsewhere.
func (b *builder) without(at, path string, err error) string {
	if raw := b.origins[at].raw; raw != "" {
		return strings.ReplaceAll(err.Error(), path, raw)
	}
	return err.Error()
}

func (b *builder) sign(at string, s *Sign) (pubsub.Middleware, error) {
	keys, err := b.keyring(at+".keyring", s.Keyring)
	if err != nil {
		return pubsub.Middleware{}, err
	}
	m := security.Sign(security.SignOptions{
		Keys: keys, Producer: s.Producer, Cover: s.Cover, Uncover: s.Uncover, Require: s.Require, Topics: s.Topics, MaxAge: s.MaxAge, MaxSkew: s.MaxSkew,
	})
	if m.Err == nil {
		return m, nil
	}
	text := m.Err.Error()
	for list, names := range map[string][]string{"cover": s.Cover, "uncover": s.Uncover, "require": s.Require} {
		for i, name := range names {
			text = b.hide(fmt.Sprintf("%s.%s[%d]", at, list, i), name, text)
		}
	}
	b.wrongf(at, "mend its settings", "%s", text)
	return m, errNoted
}

func (b *builder) access(at string, s *Access) (pubsub.Middleware, error) {
	service := s.Service
	if service == "" {
		service = b.f.Service
	}
	if service == "" {
		b.wrongf(at, "add service here, or at the top", "nobody says which service this is")
		return pubsub.Middleware{}, errNoted
	}
	p, err := b.policyFile(at+".policy", s.Policy)
	if err != nil {
		return pubsub.Middleware{}, err
	}
	return security.Access(service, p), nil
}

func (b *builder) replay(at string, s *Replay) (pubsub.Middleware, error) {
	store, err := b.store(at, s.Store)
	return security.Replay(security.ReplayOptions{Store: store, Window: s.Window, Lease: s.Lease}), err
}

// encrypt makes the layer of a service whose messages producer signs.
func (b *builder) encrypt(at string, s *Encrypt, producer string) (pubsub.Middleware, error) {
	keys, err := b.keyring(at+".keyring", s.Keyring)
	if err != nil {
		return pubsub.Middleware{}, err
	}
	switch {
	case s.Unsigned:
		producer = ""
	case len(s.Recipients) > 0 && producer == "":
		b.wrongf(at+".recipients", "add producer to the layer sign", "nobody says who publishes what is encrypted for them")
		return pubsub.Middleware{}, errNoted
	}
	o := security.EncryptOptions{
		Producer: producer, Unwrap: []security.KMS{keys.KMS("")}, Unsigned: s.Unsigned, Plain: s.Plain, KeyAge: s.KeyAge, Pause: s.Pause,
	}
	for _, r := range s.Recipients {
		o.Recipients = append(o.Recipients, keys.KMS(r))
	}
	return security.Encrypt(o), nil
}

// store is the one of a layer that remembers what was handled.
func (b *builder) store(at, name string) (middleware.DedupStore, error) {
	store := b.opts.DedupStores[name]
	if name != "" && store == nil && !b.opts.Unbound {
		b.wrongf(at+".store", remedy(name, slices.Collect(maps.Keys(b.opts.DedupStores))), "no store %s is in Options.DedupStores", b.say(at+".store", name))
		return nil, errNoted
	}
	return store, nil
}

// producer is who signs in a chain: the service's layers stand before those of a subscription.
func (b *builder) producer(layers []Layer) string {
	for _, l := range slices.Concat(b.f.Middleware, layers) {
		if l.Name == "sign" {
			return l.Sign.Producer
		}
	}
	return ""
}

// needSign refuses layers that have nothing to go by where nobody verifies a signature: their subscriptions would pause for ever.
func (b *builder) needSign(path string, layers []Layer) {
	chain := slices.Concat(b.f.Middleware, layers)
	if slices.ContainsFunc(chain, func(l Layer) bool { return l.Name == "sign" || l.Name == "own" }) {
		return // the program's own layer may be the one
	}
	for i, l := range layers {
		if l.Name == "access" || l.Name == "replay" || l.Name == "encrypt" && !l.Encrypt.Unsigned {
			b.wrongf(fmt.Sprintf("%s[%d].%s", path, i, l.Name), "list the layer sign before it", "it needs to know who has signed a message")
		}
	}
}
