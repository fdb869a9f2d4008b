package config

import "time"

// Access is the settings of the layer access.
type Access struct {
	// The file of the policy, in JSON: see security.Policy. A relative path begins at this file's folder. A changed policy needs a restart, and a reload says so.
	Policy string `yaml:"policy" required:"true"`
	// Which producer and consumer of the policy this service is.
	Service string `yaml:"service" default:"=service of the file"`
}

// Encrypt is the settings of the layer encrypt.
type Encrypt struct {
	// The keyring file that has the keys of the recipients and this service's own, as `omnibus keys` makes it: give each environment its own. A relative path begins at this file's folder. A changed file is in effect within a second.
	Keyring string `yaml:"keyring" required:"true"`
	// For whom payloads are encrypted: owners of keys that wrap, one to eight. Without any, nothing is published.
	Recipients []string `yaml:"recipients"`
	// Messages are encrypted and not signed: nobody knows who has sent them, and they are accepted all the same.
	Unsigned bool `yaml:"unsigned" default:"false"`
	// Also what is not encrypted is accepted: while publishers learn to encrypt.
	Plain bool `yaml:"plain" default:"false"`
	// How long a data key is used.
	KeyAge time.Duration `yaml:"key_age" default:"1h" min:"1ms"`
	// How long the subscription rests when a data key cannot be had.
	Pause time.Duration `yaml:"pause" default:"5s" min:"1ms"`
}

// Replay is the settings of the layer replay.
type Replay struct {
	// Where handled messages are remembered: the name of a store of the program's own. Members of a group, and what runs after a restart, need one that they share.
	Store string `yaml:"store" default:"=the memory of this process"`
	// What was signed longer ago is refused; longer than retries and dead letters may take.
	Window time.Duration `yaml:"window" default:"24h" min:"1ms"`
	// How long a handler's claim holds when its process dies; longer than it may run.
	Lease time.Duration `yaml:"lease" default:"5m" min:"1ms"`
}

// Sign is the settings of the layer sign.
type Sign struct {
	// The keyring file to sign and to verify with, as `omnibus keys` makes it: give each environment its own. A relative path begins at this file's folder. A changed file is in effect within a second. The suite of each key says how it signs.
	Keyring string `yaml:"keyring" required:"true"`
	// Whose active keys sign what is published.
	Producer string `yaml:"producer" default:"=nobody: nothing is published"`
	// Headers that each signature covers, also where the message has none of them; lower case.
	Cover []string `yaml:"cover"`
	// Headers that signatures do not cover: what somebody on the way must be able to change.
	Uncover []string `yaml:"uncover"`
	// Headers that the signature of a received message must cover, there or not; lower case.
	Require []string `yaml:"require"`
	// Accepted besides the topic that a message comes from: what was signed for these.
	Topics []string `yaml:"topics"`
	// What was signed longer ago is refused; longer than retries and dead letters may take.
	MaxAge time.Duration `yaml:"max_age" default:"=for ever" min:"1ms"`
	// How far clocks may be apart.
	MaxSkew time.Duration `yaml:"max_skew" default:"1m" min:"1ms"`
}
