package redisstreams_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/internal/dedup"
	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/redisstreams"
)

func parameters(list ...string) url.Values {
	v := url.Values{}
	for i := 0; i < len(list); i += 2 {
		v.Set(list[i], list[i+1])
	}
	return v
}

// refused opens a URL that must not work, and looks for the secret in what it is told.
func refused(t *testing.T, address string, code pubsub.Code, secret string) {
	t.Helper()
	adaptertest.Refused(t, redisstreams.Open, address, code, secret)
}

// What a confirmation covers is what the server is set to, and less than it is asked for is refused.
func TestDurability(t *testing.T) {
	s := ownServer(t, "default")
	c := s.client(t)
	for _, x := range []struct {
		appendonly, fsync string
		query             url.Values
		want              pubsub.Durability
		code              pubsub.Code
	}{
		{"yes", "always", nil, pubsub.Disk, 0},
		{"yes", "no", nil, pubsub.Process, 0},
		{"yes", "everysec", nil, 0, pubsub.ErrUnsupported},
		{"yes", "everysec", parameters("durability", "memory"), pubsub.Memory, 0},
		{"yes", "everysec", parameters("waitaof", "true"), pubsub.Disk, 0},
		{"no", "always", parameters("waitaof", "true"), 0, pubsub.ErrUnsupported},
		{"no", "always", nil, 0, pubsub.ErrUnsupported},
		{"no", "always", parameters("durability", "disk"), 0, pubsub.ErrUnsupported},
		{"yes", "always", parameters("durability", "replicated"), 0, pubsub.ErrUnsupported},
		{"yes", "always", parameters("wait", "1", "durability", "replicated"), pubsub.Replicated, 0},
	} {
		if err := errors.Join(c.ConfigSet(t.Context(), "appendonly", x.appendonly).Err(), c.ConfigSet(t.Context(), "appendfsync", x.fsync).Err()); err != nil {
			t.Fatal(err)
		}
		b, err := redisstreams.Open(t.Context(), s.address(x.query), nil)
		if pubsub.CodeOf(err) != x.code {
			t.Errorf("%+v: %v", x, err)
		}
		if err != nil {
			continue
		}
		if got := b.Capabilities().Durability; got != x.want {
			t.Errorf("%+v: %v", x, got)
		}
		_ = b.Close()
	}
}

// With waitaof a message is confirmed when it is on the disk; where too few replicas have it, it is not, and once they have it is there once.
func TestWait(t *testing.T) {
	s := startServer(t, "default")
	open := func(query url.Values) *pubsub.Broker {
		t.Helper()
		b, err := redisstreams.Open(t.Context(), s.address(query), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		return b
	}
	b := open(parameters("waitaof", "true"))
	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "orders"}}}); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), "orders", pubsub.Message{}); err != nil {
		t.Error(err)
	}
	alone := open(parameters("wait", "1"))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := alone.Publish(ctx, "orders", pubsub.Message{}); pubsub.CodeOf(err) != pubsub.ErrUnconfirmed {
		t.Errorf("without a replica: %v", err)
	}
	hasty, err := alone.Publisher(pubsub.PublisherOptions{Ack: pubsub.AckLeader})
	if err != nil {
		t.Fatal(err)
	}
	if err := hasty.Publish(t.Context(), "orders", pubsub.Message{}); err != nil {
		t.Errorf("with AckLeader: %v", err)
	}
	if n := s.client(t).XLen(t.Context(), "orders").Val(); n != 3 {
		t.Errorf("%d messages are stored, want 3: what waits for a replica is not sent again", n)
	}
}

// A user who may not read the settings says what they are, and whatever he may not do is ErrDenied.
func TestLimitedUser(t *testing.T) {
	s := startServer(t, "acl")
	limited := func(more url.Values) string {
		p := s.Params
		p.User = containers.RedisLimited
		return s.addressOf(p, more)
	}
	refused(t, limited(nil), pubsub.ErrUnsupported, s.Params.Password)
	b, err := redisstreams.Open(t.Context(), limited(parameters("durability", "disk")), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if got := b.Capabilities(); got.Durability != pubsub.Disk {
		t.Errorf("the durability is %v, disk was stated", got.Durability)
	}
	if err := s.open(t).Ensure(t.Context(), pubsub.Topology{
		Topics: []pubsub.TopicSpec{{Name: "orders"}}, Groups: []pubsub.Subscription{{Topic: containers.RedisGranted, Group: "g"}},
	}); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), "orders", pubsub.Message{}); pubsub.CodeOf(err) != pubsub.ErrDenied {
		t.Errorf("publishing where it is denied: %v", err)
	}
	if err := b.Publish(t.Context(), containers.RedisGranted, pubsub.Message{}); err != nil {
		t.Error(err)
	}
	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "others"}}}); pubsub.CodeOf(err) != pubsub.ErrDenied {
		t.Errorf("making a topic where it is denied: %v", err)
	}
}

// A server that would lose at its next start what scripts have written is refused, unless that is accepted by name.
func TestDefaultUserWithoutRights(t *testing.T) {
	s := ownServer(t, "acl")
	c := s.client(t)
	if err := c.Do(t.Context(), "ACL", "SETUSER", "default", "reset").Err(); err != nil {
		t.Fatal(err)
	}
	refused(t, s.address(nil), pubsub.ErrUnsupported, s.Params.Password)
	b, err := redisstreams.Open(t.Context(), s.address(parameters("durability", "memory")), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.Capabilities().Durability; got != pubsub.Memory {
		t.Errorf("the durability is %v", got)
	}
	_ = b.Close()
	if err := c.Do(t.Context(), "ACL", "SETUSER", "default", "~*", "&*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.open(t).Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestCredentials(t *testing.T) {
	s := startServer(t, "acl")
	b := s.open(t)
	if err := b.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	file := "redis://" + s.Params.User + "@" + strings.TrimPrefix(s.URL(), "redis://") + "?" + parameters("password_file", adaptertest.File(t, s.Params.Password+"\n")).Encode()
	b, err := redisstreams.Open(t.Context(), file, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
	wrong := s.Params
	wrong.Password = "wr0ng"
	refused(t, s.addressOf(wrong, nil), pubsub.ErrUnauthenticated, "wr0ng")
	refused(t, s.URL(), pubsub.ErrUnauthenticated, "")
	refused(t, "redis://127.0.0.1:1", pubsub.ErrUnavailable, "")
}

// A topic's shape cannot be had, or is another one.
func TestTopicsDisagree(t *testing.T) {
	s := startServer(t, "default")
	b := s.open(t)
	ensure := func(x pubsub.TopicSpec) pubsub.Code {
		x.Name = "orders"
		return pubsub.CodeOf(b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{x}}))
	}
	for _, x := range []struct {
		spec pubsub.TopicSpec
		want pubsub.Code
	}{
		{pubsub.TopicSpec{Replicas: 3}, pubsub.ErrUnsupported}, {pubsub.TopicSpec{MaxBytes: 1}, pubsub.ErrUnsupported}, {pubsub.TopicSpec{Partitions: 3}, 0},
		{pubsub.TopicSpec{}, 0}, {pubsub.TopicSpec{Partitions: 3}, 0}, {pubsub.TopicSpec{Partitions: 2}, pubsub.ErrConflict},
	} {
		if got := ensure(x.spec); got != x.want {
			t.Errorf("%+v: %v, want %v", x.spec, got, x.want)
		}
	}
	if err := s.client(t).Set(t.Context(), "text", "no stream", 0).Err(); err != nil {
		t.Fatal(err)
	}
	err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{{Topic: "text", Group: "g"}}})
	if pubsub.CodeOf(err) != pubsub.ErrConflict {
		t.Errorf("a topic that is no stream: %v", err)
	}
}

// Of two members that begin with one message at once one has it; a claim ends with its lease, and what was done is remembered.
func TestDedupStore(t *testing.T) {
	s := startServer(t, "default")
	store := redisstreams.NewDedupStore(s.client(t))
	key := dedup.Key{Topic: "orders", Group: "g", ID: "1"}
	begin := func(claim uint64, lease time.Duration, want dedup.State) {
		t.Helper()
		got, err := store.Begin(t.Context(), key, claim, lease)
		if err != nil || got != want {
			t.Errorf("claim %d: %v, %v, want %v", claim, got, err, want)
		}
	}
	begin(1, time.Minute, dedup.New)
	begin(2, time.Minute, dedup.Running)
	if err := store.Abort(t.Context(), key, 2); err != nil {
		t.Fatal(err)
	}
	begin(2, time.Minute, dedup.Running)
	if err := store.Abort(t.Context(), key, 1); err != nil {
		t.Fatal(err)
	}
	begin(2, 20*time.Millisecond, dedup.New)
	poll.Until(t, "the claim has ended", func() bool {
		got, err := store.Begin(t.Context(), key, 3, time.Minute)
		return err == nil && got == dedup.New
	})
	if err := store.Done(t.Context(), key, time.Minute); err != nil {
		t.Fatal(err)
	}
	begin(4, time.Minute, dedup.Done)
}
