// Package config reads a service's messaging from one strict YAML or JSON file: the broker, topics, subscriptions, policies, the middleware
// chain, dead letters. A program adds its handlers; changing the broker changes one line of the file.
//
//	svc, err := config.Open(ctx, "omnibus.yaml", brokers.All(), nil)
//	...
//	err = svc.Serve(ctx, config.Handlers{"billing": bill, "shipping": ship})
//
// [File] has every key; docs/config.md lists them with their defaults and the parameters of each broker's URL, and [Schema] is for editors.
//
// # Values from elsewhere
//
// A value may refer to the environment and to files, whole or in part: ${env:NAME}, ${file:PATH}. ${env:NAME:-other} is "other" where NAME is not
// set or empty; without it that is an error. A path is relative to the file's folder; the end of a last line is cut off, and a byte
// order mark. $${ is a plain ${. What is
// inserted is never parsed as YAML. In broker's user, password and parameters it is escaped, so that a password may have any character. It is never
// shown in an error.
//
// # Strictness
//
// An unknown key, a duplicate, a wrong type, a value out of its bounds, a variable or a file that is not there: Load reports all of them at once, each
// with file, line, path and a remedy; and where there is none, all that does not fit together, such as a name that nothing has. Nothing is connected to
// before all is well. YAML anchors, aliases, merge keys and tags are refused: what is used twice is a policy with a name. A key that is written down
// with an empty value is refused, too.
//
// # Reload
//
// [Service.Reload] reads the file again. What takes effect while messages flow: log.level, subscriptions.*.paused, and the rate of a
// rate-limit layer. Everything else needs a restart, since groups, leases and layers keep what they know: Reload then changes nothing at all, and
// says what differs.
package config
