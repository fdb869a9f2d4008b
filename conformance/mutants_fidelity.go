package conformance

import (
	"slices"
	"strings"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// fidelityMutants damage messages.
func fidelityMutants() []Mutant {
	return []Mutant{
		{"makes an empty payload of none", "Fidelity/NilAndEmpty", func() *mutation {
			return damages(func(m *pubsub.Message) {
				if m.Payload == nil {
					m.Payload = []byte{}
				}
			})
		}},
		{"makes payloads valid UTF-8", "Fidelity/Payloads", func() *mutation {
			return damages(func(m *pubsub.Message) {
				if m.Payload != nil {
					m.Payload = []byte(strings.ToValidUTF8(string(m.Payload), "?"))
				}
			})
		}},
		{"keeps times to the second", "Fidelity/Attributes", func() *mutation {
			return damages(func(m *pubsub.Message) { m.Time = m.Time.Truncate(time.Second) })
		}},
		{"trims the values of headers", "Fidelity/HeaderTexts", func() *mutation {
			return damages(func(m *pubsub.Message) {
				m.Headers = slices.Clone(m.Headers)
				for i := range m.Headers {
					m.Headers[i].Value = strings.TrimSpace(m.Headers[i].Value)
				}
			})
		}},
		{"keeps only the last of repeated headers", "Fidelity/HeadersRepeated", func() *mutation {
			return damages(func(m *pubsub.Message) {
				var kept pubsub.Headers
				for i, h := range m.Headers {
					if !slices.ContainsFunc(m.Headers[i+1:], func(o pubsub.Header) bool { return o.Name == h.Name }) {
						kept = append(kept, h)
					}
				}
				m.Headers = kept
			})
		}},
		{"makes text of every header", "Fidelity/HeaderKinds", func() *mutation {
			return damages(func(m *pubsub.Message) {
				m.Headers = slices.Clone(m.Headers)
				for i := range m.Headers {
					m.Headers[i].Kind = pubsub.HeaderText
				}
			})
		}},
		{"cuts payloads at 64 KiB", "Fidelity/Largest", func() *mutation {
			return damages(func(m *pubsub.Message) { m.Payload = m.Payload[:min(len(m.Payload), 64<<10)] })
		}},
		{"loses what follows a message of the largest size", "Fidelity/TooLarge", func() *mutation {
			after := false
			return &mutation{out: func(o *pubsub.Out) outFate {
				lose := after
				if after = len(o.Msg.Payload) > 500_000; lose {
					return outLose
				}
				return outStore
			}}
		}},
		{"writes into every 100th message that it is given", "Fidelity/CallersMessage", func() *mutation {
			strike := every(100)
			return &mutation{out: func(o *pubsub.Out) outFate {
				if strike() && len(o.Msg.Payload) > 0 {
					o.Msg.Payload[0] ^= 0xff
				}
				return outStore
			}}
		}},
		{"adds a header of its own to every 100th message", "Fidelity/MiddlewareView", func() *mutation {
			strike := every(100)
			return damages(func(m *pubsub.Message) {
				if strike() {
					m.Headers = append(slices.Clip(m.Headers), pubsub.Header{Name: "broker", Value: "me"})
				}
			})
		}},
		{"reads the headers of another client as if it had written them itself", "Fidelity/ForeignMessages", func() *mutation {
			return damagesForeign(func(m *pubsub.Message) {
				m.Headers = slices.Clone(m.Headers)
				for i := range m.Headers {
					m.Headers[i].Value = strings.ReplaceAll(m.Headers[i].Value, "%41", "A")
				}
			})
		}},
		{"makes text of every header of another client", "Fidelity/ForeignMessages", func() *mutation {
			return damagesForeign(func(m *pubsub.Message) {
				m.Headers = slices.Clone(m.Headers)
				for i := range m.Headers {
					m.Headers[i].Kind = pubsub.HeaderText
				}
			})
		}},
		{"loses every 100th message that bears no ID of its own", "Fidelity/ForeignMessages", func() *mutation {
			strike := every(100)
			return &mutation{record: func(_ *tapSource, r *pubsub.Record) recordFate {
				if r.Msg.ID == "" && strike() {
					return recordLose
				}
				return recordKeep
			}}
		}},
	}
}

// damages changes what is shown, but for the first messages.
func damages(f func(m *pubsub.Message)) *mutation {
	n := 0
	return &mutation{record: func(_ *tapSource, r *pubsub.Record) recordFate {
		if n++; n > sound {
			m := *r.Msg
			f(&m)
			r.Msg = &m
		}
		return recordKeep
	}}
}

// damagesForeign changes what another client has written. There are messages of our own before it.
func damagesForeign(f func(m *pubsub.Message)) *mutation {
	return damages(func(m *pubsub.Message) {
		if m.ID == "" {
			f(m)
		}
	})
}
