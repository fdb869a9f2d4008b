package containers

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// A kind is what this package knows of one broker. To add one, write a file with a function that returns it, and name that in
// kinds.
type kind struct {
	name     string // "nats"
	image    string // the official one
	variants []string
	versions map[string]string // the official images of the variants that are another version

	// plan lays out one variant; ports and files come from the site.
	plan func(variant string, s *site) (*plan, error)

	// ready asks the node once whether it can serve.
	ready func(ctx context.Context, admin string) error

	// regained asks a node once that is ready again without what it had stored, whether it has so much that the others may lose theirs; nil =
	// that is so once it is ready.
	regained func(ctx context.Context, admin string) error

	// version connects as a client does, but without credentials, and asks for the broker's version; "" if it tells that to nobody without any.
	version func(ctx context.Context, client string) (string, error)
}

// A plan says which processes make a broker.
type plan struct {
	scheme string // of the URL
	tail   string // of the URL: what follows the addresses, a path and parameters
	nodes  []nodePlan
	params Params
	token  func(valid time.Duration) (string, error) // makes what Params.Token is; nil = the broker wants none, or one certain
}

// A nodePlan says how one process is started. Listeners are bound to 0.0.0.0 in a network of the container's own, to
// 127.0.0.1 in the host's.
type nodePlan struct {
	cmd         []string
	env         map[string]string
	files       map[string]string // by their path in the container
	hostNetwork bool              // then a port's inside is its outside

	client port // where clients connect, by way of the proxy
	admin  port // what ready asks
	front  int  // what the node announces to clients; see site.front
	inner  bool // clients hear of it from the others: it is not in the URL
}

// ports are what the host reaches.
func (p nodePlan) ports() []port { return []port{p.client, p.admin} }

// A port is a listener of a container: its number inside, and on the host.
type port struct{ inside, outside int }

func kinds() []kind { return []kind{natsKind(), kafkaKind(), rabbitmqKind(), redisKind()} }

// Variants names the variants of a kind, "default" first; nil if there is no such kind.
func Variants(kind string) []string {
	for _, k := range kinds() {
		if k.name == kind {
			return k.variants
		}
	}
	return nil
}

func lookup(name, variant string) (kind, string, error) {
	if variant == "" {
		variant = "default"
	}
	var known []string
	for _, k := range kinds() {
		if k.name != name {
			known = append(known, k.name)
			continue
		}
		if !slices.Contains(k.variants, variant) {
			return kind{}, "", fmt.Errorf("containers: %s has no variant %q, only %q", name, variant, k.variants)
		}
		return k, variant, nil
	}
	return kind{}, "", fmt.Errorf("containers: there is no kind %q, only %q", name, known)
}

// URLVariable names the environment variable that points to a running broker of the kind and variant: OMNIBUS_NATS_URL for "nats"
// and "default" or "", OMNIBUS_NATS_TLS_URL for "nats" and "tls", OMNIBUS_KAFKA_4_0_URL for "kafka" and "4.0". It does not ask whether there is such a kind or variant.
func URLVariable(kind, variant string) string {
	return variable(kind, variant, "URL")
}

func variable(kind, variant, what string) string {
	if variant != "" && variant != "default" {
		kind += "_" + strings.ReplaceAll(variant, ".", "_")
	}
	return "OMNIBUS_" + strings.ToUpper(kind) + "_" + what
}

// officialImage is that of a variant.
func (k kind) officialImage(variant string) string {
	return cmp.Or(k.versions[variant], k.image)
}

func (k kind) imageFromEnvironment(variant string) string {
	if k.versions[variant] == "" {
		variant = "" // the same image as the others
	}
	return os.Getenv(variable(k.name, variant, "IMAGE"))
}

// localImage is the tag that `make setup` gives to what it builds.
func (k kind) localImage(variant string) string {
	tag := "omnibus-" + k.name + ":local"
	if k.versions[variant] != "" {
		tag += "-" + variant
	}
	return tag
}
