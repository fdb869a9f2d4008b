package config

import "time"

// A File is what a configuration file has. The comments are the descriptions in the schema and the reference; the tags say what each key is called,
// its default ("=" is one that is worked out) and its bounds. A zero value is a key that is not there.
type File struct {
	// Where the broker is: one URL, whose parameters have TLS, credentials and the adapter's own options.
	Broker string `yaml:"broker" required:"true"`
	// Named in dead letters and client IDs.
	Service string `yaml:"service" default:"=the program's name"`
	// Who makes what is missing at the broker: create makes it, verify only checks that it is there and agrees, off does not look.
	Manage string `yaml:"manage" oneof:"create verify off" default:"create"`
	// How long running handlers and unconfirmed messages have at the end.
	DrainTimeout time.Duration `yaml:"drain_timeout" default:"30s" min:"1ms"`
	// Reconnecting for longer than that ends the subscriptions.
	MaxDowntime time.Duration `yaml:"max_downtime" default:"=for ever" min:"1ms"`
	// What the program logs about messages. Without it, and without a logger of the program's own, nothing is logged.
	Log *Log `yaml:"log"`
	// What the broker must be able to do: opening fails where it is less.
	Require *Require `yaml:"require"`
	// The topics that the service uses. Where any are listed, a subscription or dead letters that name another are refused. null is a topic with all defaults.
	Topics map[string]Topic `yaml:"topics"`
	// Publishers with options of their own, by the name that the program asks for.
	Publishers map[string]Publisher `yaml:"publishers"`
	// How failed messages are retried, by the name that retry keys use.
	Policies map[string]Policy `yaml:"policies"`
	// The layers of every publisher and subscription, from the wire inwards: incoming messages pass them top down, outgoing ones bottom up.
	Middleware []Layer `yaml:"middleware"`
	// What is consumed, by the name that the program's handlers have.
	Subscriptions map[string]Subscription `yaml:"subscriptions"`
}

// Log says what is logged.
type Log struct {
	// The least that is logged.
	Level string `yaml:"level" oneof:"debug info warn error" default:"info"`
	// How a line looks on the standard error. Only where the program has no logger of its own.
	Format string `yaml:"format" oneof:"text json" default:"text"`
}

// Require is what a service needs of its broker: each key at least.
type Require struct {
	// What a confirmation must survive.
	Durability string `yaml:"durability" oneof:"none memory process disk replicated" default:"=process, or what the URL accepts"`
	// Messages are kept without groups: start earliest, or at a time.
	History bool `yaml:"history" default:"false"`
	// What was not settled comes back after a crash.
	Redelivery bool `yaml:"redelivery" default:"false"`
	// Where the messages of a key stay in order without an exclusive group.
	Order string `yaml:"order" oneof:"member group" default:"member"`
	// A group can have one active member at a time.
	Exclusive bool `yaml:"exclusive" default:"false"`
	// How long a handler may run before its message goes to somebody else.
	LeaseMax time.Duration `yaml:"lease_max" also:"forever" default:"=any" min:"1ms"`
	// The broker counts deliveries.
	Deliveries bool `yaml:"deliveries" default:"false"`
	// Whose recorded failures survive a crash: of no message, of the first of a lane, of all.
	StoresAttempts string `yaml:"stores_attempts" oneof:"none head all" default:"none"`
	// A hand-back raises no count at the broker.
	FreeRelease bool `yaml:"free_release" default:"false"`
	// The longest delay that the broker itself can give a message.
	RetryIn time.Duration `yaml:"retry_in" also:"forever" default:"=any" min:"1ms"`
	// Longer delays go through retry tiers.
	Tiers bool `yaml:"tiers" default:"false"`
	// How late a retry may come.
	RetryLate time.Duration `yaml:"retry_late" default:"=any" min:"1ms"`
	// Messages can be published for later.
	Schedule bool `yaml:"schedule" default:"false"`
	// Messages have priorities.
	Priority bool `yaml:"priority" default:"false"`
	// A subscription's topic can be a pattern.
	Patterns bool `yaml:"patterns" default:"false"`
	// A topic can have several partitions.
	Partitions bool `yaml:"partitions" default:"false"`
	// The window in which a message ID that is sent twice is stored once.
	Dedup time.Duration `yaml:"dedup" default:"=any" min:"1ms"`
	// The largest message.
	MaxMessage Bytes `yaml:"max_message" default:"=any" min:"1"`
	// How much is known of how far a group is behind.
	Lag string `yaml:"lag" oneof:"unknown partial exact" default:"unknown"`
	// Whether retries that wait at the broker can be listed, or listed and made due or given up.
	Waiting string `yaml:"waiting" oneof:"none listed managed" default:"none"`
}

// Topic describes a topic.
type Topic struct {
	// The unit of ordered parallelism.
	Partitions int `yaml:"partitions" default:"=1, or what an existing topic has" min:"1"`
	// How many brokers keep it.
	Replicas int `yaml:"replicas" default:"=the broker's" min:"1"`
	// How long messages are kept.
	Retention time.Duration `yaml:"retention" default:"=the broker's" min:"1ms"`
	// How many bytes are kept.
	MaxBytes Bytes `yaml:"max_bytes" default:"=the broker's" min:"1"`
	// It is another service's: its name may be used, it is neither made nor checked.
	External bool `yaml:"external" default:"false"`
}

// Publisher tunes one publisher.
type Publisher struct {
	// The weakest answer that counts as accepted: durable is all that the topic promises, leader is one broker, none is handed to the network.
	Ack string `yaml:"ack" oneof:"durable leader none" default:"durable"`
	// A message ID that is sent twice is stored once within the broker's window; each message needs an ID.
	DedupByID bool `yaml:"dedup_by_id" default:"false"`
	// Unconfirmed messages.
	MaxPending int `yaml:"max_pending" default:"4096" min:"1"`
	// Their bytes; a single larger message passes alone.
	MaxPendingBytes Bytes `yaml:"max_pending_bytes" default:"64MiB" min:"1"`
	// Until an unconfirmed message is reported as such.
	Timeout time.Duration `yaml:"timeout" default:"30s" min:"1ms"`
}

// Policy says how often and how soon a failed message is tried again: delays grow from initial by factor up to max, with full jitter.
type Policy struct {
	// Handler calls in all, or unlimited.
	MaxAttempts int `yaml:"max_attempts" also:"unlimited" default:"10" min:"1"`
	// No more attempts when so long has passed since the first delivery.
	MaxElapsed time.Duration `yaml:"max_elapsed" default:"=no bound" min:"1ms"`
	// Of the attempts, how many follow at once.
	Immediate int `yaml:"immediate" default:"0" min:"0"`
	// The first delay.
	Initial time.Duration `yaml:"initial" default:"1s" min:"1ms"`
	// The longest delay.
	Max time.Duration `yaml:"max" default:"5m" min:"1ms"`
	// By what a delay grows.
	Factor float64 `yaml:"factor" default:"2" min:"1"`
	// The delays as written, instead of initial, max and factor: no jitter, the last one repeats.
	Delays []time.Duration `yaml:"delays" default:"=none" min:"0s"`
}

// PolicyRef is a policy: the name of one under policies, or one in place.
type PolicyRef struct {
	Name   string  // of one under policies; "" = it is in place, or the default
	Inline *Policy // in place; nil = it is named, or the default
}

// Rule gives a kind of failure a category and its own policy.
type Rule struct {
	// Kept in the dead letter; dead_letters.routes go by it.
	Category string `yaml:"category" required:"true"`
	// The kinds of failure, any of which matches: timeout, network, or the name of a function of the program's own.
	When []string `yaml:"when" required:"true"`
	// How it is retried: the name of a policy, or one in place.
	Retry PolicyRef `yaml:"retry" default:"=as max_attempts 10, initial 1s, max 5m"`
}

// Subscription says what to consume and how failures are handled.
type Subscription struct {
	// What is consumed: a topic, or a pattern ("*" is one segment, ">" the rest).
	Topic string `yaml:"topic" required:"true"`
	// Its members share the messages, and each group gets all; "*" gives this process alone a copy of what is published while it runs.
	Group string `yaml:"group" default:"=the subscription's name"`
	// Where a group begins that the broker does not know yet: now, earliest, or a time such as 2026-01-31T08:00:00Z.
	Start string `yaml:"start" default:"now"`
	// What is kept in order while several handlers run.
	Order string `yaml:"order" oneof:"by-key per-member by-key-loose none strict" default:"by-key"`
	// Handlers that run at once.
	Concurrency int `yaml:"concurrency" default:"1" min:"1"`
	// Messages held, running or waiting.
	MaxInFlight int `yaml:"max_in_flight" default:"=256, or 16 times concurrency if that is more" min:"1"`
	// Bytes of them.
	MaxInFlightBytes Bytes `yaml:"max_in_flight_bytes" default:"64MiB" min:"1"`
	// Of the messages held, how many may wait behind a key that is being retried.
	MaxParked int `yaml:"max_parked" default:"=half of max_in_flight" min:"1"`
	// What happens when there are more: block fetches nothing until there is room, dead-letter gives up the one that is being retried.
	OnParkedFull string `yaml:"on_parked_full" oneof:"block dead-letter" default:"block"`
	// How long a dead consumer keeps a message from others; renewed while a handler runs.
	AckWait time.Duration `yaml:"ack_wait" default:"30s" min:"100ms"`
	// How long a handler may run.
	HandlerTimeout time.Duration `yaml:"handler_timeout" also:"forever" default:"5m" min:"1ms"`
	// How failures are retried that no rule matches: the name of a policy, or one in place.
	Retry PolicyRef `yaml:"retry" default:"=as max_attempts 10, initial 1s, max 5m"`
	// Policies by kind of failure; the first that matches counts.
	Rules []Rule `yaml:"rules"`
	// What becomes of later messages of a key when one of them is given up: continue handles them, block-key sends them to the dead letters, too, until all of these
	// are resolved or discarded. Only with order by-key or strict, and the group's own dead letters.
	AfterDeadLetter string `yaml:"after_dead_letter" oneof:"continue block-key" default:"continue"`
	// Where messages go that are given up.
	DeadLetters *DeadLetters `yaml:"dead_letters"`
	// More layers, inside those of the whole service. Only what they do with incoming messages counts here.
	Middleware []Layer `yaml:"middleware"`
	// Nothing is handed to the handler while it is true. Takes effect by a reload. Only for what Serve runs.
	Paused bool `yaml:"paused" default:"false"`
}

// DeadLetters says where messages go that are out of attempts or fail for good.
type DeadLetters struct {
	// Another place than the group's own.
	Topic string `yaml:"topic" default:"=the group's own dead letters"`
	// Topics by the category of the rule that matched; other failures go where they would go without.
	Routes map[string]string `yaml:"routes" default:"=none"`
	// Discards them instead.
	Drop bool `yaml:"drop" default:"false"`
}

// Bytes is a size: a whole number, or one with KiB, MiB or GiB.
type Bytes int64
