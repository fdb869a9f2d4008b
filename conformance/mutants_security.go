package conformance

import (
	"fmt"

	"github.com/omnibus-go/omnibus/pubsub"
)

// securityMutants let the wrong ones in, or say too much.
func securityMutants() []Mutant {
	return []Mutant{
		{"does without TLS where the certificate is not good", "Security/TLS", func() *mutation { return &mutation{admits: WrongCA} }},
		{"loses every 100th message", "Security/TLS", func() *mutation { return shows(recordLose, 100) }},
		{"does not ask for the client's certificate", "Security/MutualTLS", func() *mutation { return &mutation{admits: NoCertificate} }},
		{"shows every 100th message twice", "Security/MutualTLS", func() *mutation { return shows(recordTwice, 100) }},
		{"trusts every authority", "Security/WrongCA", func() *mutation { return &mutation{admits: WrongCA} }},
		{"takes a certificate that it does not trust for an outage", "Security/WrongCA", callsItOutage},
		{"lets in whoever knows the user's name", "Security/WrongPassword", func() *mutation { return &mutation{admits: WrongPassword} }},
		{"takes a wrong password for an outage", "Security/WrongPassword", callsItOutage},
		{"repeats the password that it refuses", "Security/CredentialsHidden", func() *mutation {
			m := &mutation{}
			m.refusal = func(err error) error { return m.tells(err) }
			return m
		}},
		{"says with which password it asks whether the broker is there", "Security/CredentialsHidden", func() *mutation {
			m := &mutation{}
			m.ping = func(err error) error {
				if err != nil {
					return m.tells(err)
				}
				return nil
			}
			return m
		}},
		{"says with which password it reconnects", "Security/CredentialsHidden", func() *mutation {
			m := &mutation{}
			m.opened = func(_ pubsub.Driver, _ pubsub.SourceSpec, err error) error { return m.tells(err) }
			return m
		}},
	}
}

func callsItOutage() *mutation {
	return &mutation{refusal: func(err error) error { return &pubsub.Error{Op: "open", Code: pubsub.ErrUnavailable, Err: err} }}
}

// tells puts a secret into an error.
func (m *mutation) tells(err error) error { return fmt.Errorf("login with %s: %w", m.secrets[0], err) }
