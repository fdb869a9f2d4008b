package config

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A plan is what a file comes to, as the packages that do it want it.
type plan struct {
	options       pubsub.Options
	topics        []pubsub.TopicSpec
	publishers    map[string]pubsub.PublisherOptions
	subscriptions map[string]pubsub.Subscription
	level         *slog.LevelVar               // of the log; nil = the file says nothing about it
	rates         map[string]*rate             // the rate-limit layers, by their paths
	policies      map[string][sha256.Size]byte // digests of the access policies, by the paths of their keys
}

// A builder makes the plan of a file whose keys and values are all right by themselves, and finds what is not right together.
type builder struct {
	*decoder
	f     *File
	plan  plan
	rings map[string]*security.Keyring // by their paths
	own   bool                         // there is a layer of the program's own, which may do what is not seen here
}

func (d *decoder) build(f *File) plan {
	b := &builder{decoder: d, f: f, rings: map[string]*security.Keyring{}}
	b.plan = plan{publishers: map[string]pubsub.PublisherOptions{}, subscriptions: map[string]pubsub.Subscription{}, rates: map[string]*rate{},
		policies: map[string][sha256.Size]byte{}}
	b.options()
	b.topics()
	for _, name := range slices.Sorted(maps.Keys(f.Policies)) {
		p := f.Policies[name]
		b.toPolicy("policies."+name, &p)
	}
	for name, p := range f.Publishers {
		b.plan.publishers[name] = pubsub.PublisherOptions{
			Ack: named(p.Ack, pubsub.AckDurable, pubsub.AckNone), DedupByID: p.DedupByID, MaxPending: p.MaxPending,
			MaxPendingBytes: int64(p.MaxPendingBytes), Timeout: p.Timeout,
		}
	}
	b.plan.options.Use = b.chain("middleware", f.Middleware)
	b.order("middleware", b.plan.options.Use)
	first := map[[2]string]string{}
	for _, name := range slices.Sorted(maps.Keys(f.Subscriptions)) {
		s := f.Subscriptions[name]
		sub := b.subscription(name, &s)
		place := [2]string{sub.Topic, sub.Group}
		if other, twice := first[place]; twice && sub.Group != pubsub.Broadcast {
			b.wrongf("subscriptions."+name, "give it a group of its own; more members of one group are more concurrency, or more processes",
				"it has the topic and the group of subscriptions.%s: each would get a part of the messages", other)
		}
		first[place] = name
		b.plan.subscriptions[name] = sub
	}
	return b.plan
}

func (b *builder) options() {
	f := b.f
	b.plan.options = pubsub.Options{
		Service: f.Service, Manage: named(f.Manage, pubsub.Create, pubsub.Off), DrainTimeout: f.DrainTimeout, MaxDowntime: f.MaxDowntime, Logger: b.opts.Logger,
	}
	if f.Log != nil {
		b.plan.level = &slog.LevelVar{}
		b.plan.level.Set(level(f.Log.Level))
		switch {
		case b.opts.Logger == nil:
			b.plan.options.Logger = slog.New(handler(f.Log.Format, b.plan.level))
		case f.Log.Format != "":
			b.wrongf("log.format", "remove it: the program decides how its log looks", "the program has a logger of its own")
		default:
			b.plan.options.Logger = slog.New(&levelled{b.opts.Logger.Handler(), b.plan.level})
		}
	}
	if r := f.Require; r != nil {
		b.plan.options.Require = pubsub.Capabilities{
			Durability: named(r.Durability, pubsub.None, pubsub.Replicated), History: r.History, Redelivery: r.Redelivery,
			Order: named(r.Order, pubsub.OrderInMember, pubsub.OrderInGroup), Exclusive: r.Exclusive, LeaseMax: r.LeaseMax, Deliveries: r.Deliveries,
			StoresAttempts: named(r.StoresAttempts, pubsub.StoresNone, pubsub.StoresAll), FreeRelease: r.FreeRelease, RetryIn: r.RetryIn, Tiers: r.Tiers,
			RetryLate: r.RetryLate, Schedule: r.Schedule, Priority: r.Priority, Patterns: r.Patterns, Partitions: r.Partitions, Dedup: r.Dedup,
			MaxMessage: int64(r.MaxMessage), Lag: named(r.Lag, pubsub.LagUnknown, pubsub.LagExact),
			Waiting: named(r.Waiting, pubsub.WaitingNone, pubsub.WaitingManaged),
		}
	}
}

// named is the value of that name from first to last; first for "".
func named[E interface {
	~uint8
	String() string
}](name string, first, last E) E {
	for e := first; e <= last; e++ {
		if e.String() == name {
			return e
		}
	}
	return first
}

func (b *builder) topics() {
	for _, name := range slices.Sorted(maps.Keys(b.f.Topics)) {
		t, path := b.f.Topics[name], "topics."+name
		spec := pubsub.TopicSpec{Name: name, Partitions: t.Partitions, Replicas: t.Replicas, Retention: t.Retention, MaxBytes: int64(t.MaxBytes)}
		if err := spec.Check(); err != nil {
			b.wrongf(path, nameRemedy, "%v", err)
		}
		if !t.External {
			b.plan.topics = append(b.plan.topics, spec)
		} else if t != (Topic{External: true}) {
			b.wrongf(path, "remove external, or the other keys", "an external topic is not made: its other keys would have no effect")
		}
	}
}

const nameRemedy = `a name is segments of A-Z a-z 0-9 _ - joined by dots, without "__" and not under "omnibus."; a group is one segment`

// topic looks for one that is used among those that are listed.
func (b *builder) topic(path, name string) {
	if len(b.f.Topics) == 0 || name == "" {
		return
	}
	if _, ok := b.f.Topics[name]; ok {
		return
	}
	known := slices.Collect(maps.Keys(b.f.Topics))
	if pubsub.IsPattern(name) {
		if slices.ContainsFunc(known, func(t string) bool { return pubsub.MatchPattern(name, t) }) {
			return
		}
		b.wrongf(path, remedy(name, known), "no topic under topics is covered by the pattern %s", b.say(path, name))
		return
	}
	help := remedy(name, known)
	if !strings.HasPrefix(help, "did you mean") {
		help = "add it there, with external: true if another service makes it; " + help
	}
	b.wrongf(path, help, "no topic %s is under topics", b.say(path, name))
}

func policyOf(p *Policy) pubsub.Policy {
	return pubsub.Policy{
		MaxAttempts: p.MaxAttempts, MaxElapsed: p.MaxElapsed, Immediate: p.Immediate, Initial: p.Initial, Max: p.Max, Factor: p.Factor, Delays: p.Delays,
	}
}

func (b *builder) toPolicy(path string, p *Policy) pubsub.Policy {
	to := policyOf(p)
	if len(p.Delays) > 0 && (p.Initial != 0 || p.Max != 0 || p.Factor != 0) {
		b.wrongf(path, "keep delays, or the others", "delays excludes initial, max and factor")
	} else if p.Max != 0 && p.Initial > p.Max {
		b.wrongf(path+".initial", "make initial shorter, or max longer", "it is %v, longer than max of %v", p.Initial, p.Max)
	} else if err := to.Check(); err != nil {
		b.wrongf(path, "see the bounds of its keys", "%v", err)
	}
	return to
}

// policy is the one that a key names or has.
func (b *builder) policy(path string, r *PolicyRef) pubsub.Policy {
	if r.Inline != nil {
		return b.toPolicy(path, r.Inline)
	}
	p, ok := b.f.Policies[r.Name]
	if !ok {
		if r.Name != "" {
			b.wrongf(path, remedy(r.Name, slices.Collect(maps.Keys(b.f.Policies))), "no policy %s is under policies", b.say(path, r.Name))
		}
		return pubsub.Policy{}
	}
	to := policyOf(&p) // what is wrong with it is told of under policies
	to.Name = r.Name
	return to
}

// say names what a key has in an error: what came from elsewhere as it is written.
func (b *builder) say(path, text string) string {
	if raw := b.origins[path].raw; raw != "" {
		return raw
	}
	return shown(text)
}

// hide does the same in an error that names it.
func (b *builder) hide(path, name, text string) string {
	if raw := b.origins[path].raw; raw != "" {
		return strings.ReplaceAll(text, strconv.Quote(name), raw)
	}
	return text
}

// order refuses layers in a harmful one.
func (b *builder) order(path string, layers []pubsub.Middleware) {
	if err := pubsub.CheckLayers(layers); err != nil {
		b.wrongf(path, "layers are listed from the wire inwards: move it", "%v", err)
	}
}

func (b *builder) subscription(name string, s *Subscription) pubsub.Subscription {
	path := "subscriptions." + name
	sub := pubsub.Subscription{
		Topic: s.Topic, Group: s.Group, Concurrency: s.Concurrency, MaxInFlight: s.MaxInFlight, MaxParked: s.MaxParked,
		MaxInFlightBytes: int64(s.MaxInFlightBytes), AckWait: s.AckWait, HandlerTimeout: s.HandlerTimeout, Order: order(s.Order),
		Retry: b.policy(path+".retry", &s.Retry), Rules: b.rules(path, s.Rules),
	}
	if sub.Group == "" {
		sub.Group = name
	}
	if s.OnParkedFull == "dead-letter" {
		sub.OnParkedFull = pubsub.ParkDeadLetter
	}
	sub.AfterDeadLetter = named(s.AfterDeadLetter, pubsub.Continue, pubsub.BlockKey)
	sub.Start = b.start(path+".start", s.Start)
	b.topic(path+".topic", s.Topic)
	b.deadLetters(path+".dead_letters", s, &sub)
	sub.Use = b.chain(path+".middleware", s.Middleware)
	if len(sub.Use) > 0 {
		b.order(path+".middleware", append(slices.Clone(b.plan.options.Use), sub.Use...))
	}
	held := sub.InFlight()
	if s.Concurrency > held {
		b.wrongf(path+".max_in_flight", fmt.Sprintf("make it %d or more", s.Concurrency), "it is less than concurrency of %d", s.Concurrency)
	} else if s.MaxParked > held {
		b.wrongf(path+".max_parked", fmt.Sprintf("make it %d or less", held), "it is more than the messages held, max_in_flight of %d", held)
	} else if err := b.blocks(path, sub); err != nil {
		text := err.Error()
		for at, name := range map[string]string{path + ".topic": s.Topic, path + ".group": s.Group, path + ".dead_letters.topic": sub.DeadLetter.Topic} {
			text = b.hide(at, name, text)
		}
		b.wrongf(path, nameRemedy, "%s", text)
	}
	if b.opts.Adjust != nil {
		b.opts.Adjust(name, &sub)
	}
	return sub
}

// blocks tells of a subscription that is wrong only because it blocks keys. It returns what else is wrong.
func (b *builder) blocks(path string, sub pubsub.Subscription) error {
	err := sub.Check()
	if err == nil || sub.AfterDeadLetter == pubsub.Continue {
		return err
	}
	sub.AfterDeadLetter = pubsub.Continue
	if other := sub.Check(); other != nil {
		return other
	}
	b.wrongf(path+".after_dead_letter", "remove it, or what it does not go with", "%v", err)
	return nil
}

func order(name string) pubsub.Order {
	return map[string]pubsub.Order{
		"per-member": pubsub.OrderPerMember, "by-key-loose": pubsub.OrderByKeyLoose, "none": pubsub.OrderNone, "strict": pubsub.OrderStrict,
	}[name]
}

func (b *builder) start(path, text string) pubsub.Start {
	switch text {
	case "", "now":
		return pubsub.FromNow()
	case "earliest":
		return pubsub.FromEarliest()
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		b.wrongf(path, "write now, earliest, or a time such as 2026-01-31T08:00:00Z", "it is neither now nor earliest nor a time")
	}
	return pubsub.FromTime(t)
}

func (b *builder) deadLetters(path string, s *Subscription, sub *pubsub.Subscription) {
	dl := s.DeadLetters
	if dl == nil {
		return
	}
	if dl.Drop && (dl.Topic != "" || len(dl.Routes) > 0) {
		b.wrongf(path, "remove drop, or topic and routes", "drop excludes topic and routes")
		return
	}
	sub.DeadLetter = pubsub.DeadLetter{Topic: dl.Topic, Drop: dl.Drop}
	if len(dl.Routes) > 0 {
		sub.DeadLetter.Route = dlq.Route(dl.Routes)
	}
	b.topic(path+".topic", dl.Topic)
	known := b.categories(s)
	for _, category := range slices.Sorted(maps.Keys(dl.Routes)) {
		at := path + ".routes." + category
		b.topic(at, dl.Routes[category])
		if err := (pubsub.TopicSpec{Name: dl.Routes[category]}).Check(); err != nil {
			b.wrongf(at, nameRemedy, "%s", b.hide(at, dl.Routes[category], err.Error()))
		}
		if !b.own && !slices.Contains(known, category) {
			b.wrongf(at, remedy(category, known), "no rule has the category %q", category)
		}
	}
}

// categories are those of the rules that a subscription's failures pass.
func (b *builder) categories(s *Subscription) []string {
	rules := slices.Clone(s.Rules)
	for _, l := range append(slices.Clone(b.f.Middleware), s.Middleware...) {
		rules = append(rules, l.Retry.Rules...)
		b.own = b.own || l.Own != ""
	}
	var all []string
	for _, r := range rules {
		all = append(all, r.Category)
	}
	return all
}

func level(name string) slog.Level {
	var l slog.Level
	_ = l.UnmarshalText([]byte(name)) // it is one of those that the file may have, or "", which is info
	return l
}

func handler(format string, least slog.Leveler) slog.Handler {
	opts := &slog.HandlerOptions{Level: least}
	if format == "json" {
		return slog.NewJSONHandler(os.Stderr, opts)
	}
	return slog.NewTextHandler(os.Stderr, opts)
}
