package config

import "time"

// Layer is one layer of the chain: exactly one key, whose value is its settings, or only its name where it needs none.
type Layer struct {
	Name string `yaml:"-"` // the key that is there

	// Who may publish and consume what.
	Access Access `yaml:"access"`
	// Stops a subscription while what its handler needs is down.
	Breaker Breaker `yaml:"breaker"`
	// Compresses payloads with gzip, and decompresses what is received. Of use where publishers have it too.
	Compress Compress `yaml:"compress"`
	// Lets so many messages at a time be with the handlers of all subscriptions that use this layer together.
	Concurrency int `yaml:"concurrency" required:"true" min:"1"`
	// What a handler publishes names the delivered message as its cause.
	Correlate struct{} `yaml:"correlate"`
	// Lets the handler have a message once.
	Dedup Dedup `yaml:"dedup"`
	// Encrypts payloads, and decrypts what is received.
	Encrypt Encrypt `yaml:"encrypt"`
	// Writes a line for each run of the handler.
	Log struct{} `yaml:"log"`
	// A layer of the program's own, by its name in Options.Layers.
	Own string `yaml:"own" required:"true"`
	// Gives up a message that fails the same way again and again.
	Poison Poison `yaml:"poison"`
	// Lets so many messages a second pass to the handlers of all subscriptions that use this layer together.
	RateLimit RateLimit `yaml:"rate-limit"`
	// What was handled is not handled again, though somebody sends it again.
	Replay Replay `yaml:"replay"`
	// Classifies failures for several subscriptions at once.
	Retry Retry `yaml:"retry"`
	// Signs what is published, and verifies what is received.
	Sign Sign `yaml:"sign"`
	// Ends the handler's context.
	Timeout time.Duration `yaml:"timeout" required:"true" min:"1ms"`
}

// Breaker is the settings of the layer breaker.
type Breaker struct {
	// The time in which results are counted.
	Window time.Duration `yaml:"window" default:"1m" min:"1ms"`
	// Results that it takes to open.
	Min int `yaml:"min" default:"10" min:"1"`
	// Of failures among them that opens it, more than 0 to 1.
	Ratio float64 `yaml:"ratio" default:"0.5" min:"0.000001" max:"1"`
	// How long it stays open before it probes.
	Open time.Duration `yaml:"open" default:"30s" min:"1ms"`
	// Successes in a row that close it again.
	Probes int `yaml:"probes" default:"1" min:"1"`
	// Messages given up by the handler within the window that open it, too.
	Burst int `yaml:"burst" default:"=they do not" min:"1"`
}

// Compress is the settings of the layer compress.
type Compress struct {
	// Payloads of at least so many bytes are compressed.
	From Bytes `yaml:"from" default:"1KiB" min:"1"`
	// A payload that is larger once decompressed is refused.
	Max Bytes `yaml:"max" default:"64MiB" min:"1"`
}

// Dedup is the settings of the layer dedup.
type Dedup struct {
	// Where handled messages are remembered: the name of a store of the program's own.
	Store string `yaml:"store" default:"=the memory of this process"`
	// How long a handled message is remembered.
	Window time.Duration `yaml:"window" default:"10m" min:"1ms"`
	// How long a handler's claim holds when its process dies; longer than it may run.
	Lease time.Duration `yaml:"lease" default:"5m" min:"1ms"`
	// When to look again at a copy of what is running.
	Again time.Duration `yaml:"again" default:"1s" min:"1ms"`
}

// Poison is the settings of the layer poison.
type Poison struct {
	// Failures of one kind, one after another, that make a message poison.
	Times int `yaml:"times" default:"3" min:"2"`
	// Failing messages that are remembered.
	Messages int `yaml:"messages" default:"10000" min:"1"`
}

// RateLimit is the settings of the layer rate-limit.
type RateLimit struct {
	// Messages a second.
	PerSecond float64 `yaml:"per_second" required:"true" min:"0.000001" max:"1000000000"`
	// How many may pass at once.
	Burst int `yaml:"burst" default:"1" min:"1"`
}

// Retry is the settings of the layer retry.
type Retry struct {
	// How failures are retried that no rule matches: the name of a policy, or one in place.
	Policy PolicyRef `yaml:"policy" default:"=as max_attempts 10, initial 1s, max 5m"`
	// Policies by kind of failure; the first that matches counts.
	Rules []Rule `yaml:"rules"`
}
