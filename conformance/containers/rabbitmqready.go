package containers

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// rabbitmqReady asks the node's management, which has TLS where clients have it.
func rabbitmqReady(ctx context.Context, admin string) error {
	err := rabbitmqServes(ctx, "http://"+admin, "amqp")
	if err == nil || ctx.Err() != nil {
		return err
	}
	secured := rabbitmqServes(ctx, "https://"+admin, "amqps")
	if secured == nil {
		return nil
	}
	return errors.Join(err, secured)
}

// rabbitmqServes asks whether the node listens to clients, which it begins last, and takes part in every quorum queue.
func rabbitmqServes(ctx context.Context, management, protocol string) error {
	m := newRabbitMQManagement(management)
	defer m.close()
	if err := m.ask(ctx, "/api/health/checks/protocol-listener/"+protocol, new(any)); err != nil {
		return err
	}
	o, err := m.overview(ctx)
	if err != nil {
		return err
	}
	var queues []struct{ Name, Vhost, Type string }
	if err := m.ask(ctx, "/api/queues?disable_stats=true&columns=name,vhost,type", &queues); err != nil {
		return err
	}
	for _, q := range queues {
		if q.Type != "quorum" {
			continue
		}
		if err := m.member(ctx, o.Node, q.Vhost, q.Name); err != nil {
			return fmt.Errorf("queue %s: %w", q.Name, err)
		}
	}
	return nil
}

// A rabbitmqManagement is the management of one node.
type rabbitmqManagement struct {
	url  string
	http *http.Transport
}

func newRabbitMQManagement(url string) rabbitmqManagement {
	return rabbitmqManagement{url, &http.Transport{ // past the proxies of the environment
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // it is told nothing that is secret
	}}
}

func (m rabbitmqManagement) close() { m.http.CloseIdleConnections() }

var errNoSuchThing = errors.New("there is no such thing")

// ask has a question answered.
func (m rabbitmqManagement) ask(ctx context.Context, path string, answer any) error {
	const patience = 5 * time.Second // what is asked while nodes come and go may never be answered
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url+path, http.NoBody)
	if err != nil {
		return err
	}
	req.SetBasicAuth(rabbitmqWatcher, rabbitmqWatcher)
	resp, err := m.http.RoundTrip(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode == http.StatusNotFound:
		return errNoSuchThing
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: %s: %.200s", path, resp.Status, text)
	}
	return json.Unmarshal(text, answer)
}

// A rabbitmqOverview is what a node says of itself.
type rabbitmqOverview struct {
	Node    string
	Version string `json:"rabbitmq_version"`
}

func (m rabbitmqManagement) overview(ctx context.Context) (o rabbitmqOverview, err error) {
	return o, m.ask(ctx, "/api/overview?disable_stats=true", &o)
}

// member returns once a node has a vote in a quorum queue and all that the queue's leader had when it was first asked, and fails if it has no
// vote or the queue no leader. Servers before 3.13 are not asked: they do not tell. A queue of which no member has heard of an election
// never has one: its servers were killed too soon after it was declared.
func (m rabbitmqManagement) member(ctx context.Context, node, vhost, queue string) error {
	mark := -1.
	for {
		var members []map[string]any
		err := m.ask(ctx, "/api/queues/quorum/"+url.PathEscape(vhost)+"/"+url.PathEscape(queue)+"/status", &members)
		if err != nil {
			if errors.Is(err, errNoSuchThing) {
				return nil // any more, or no such question
			}
			return err
		}
		lead := slices.IndexFunc(members, func(m map[string]any) bool { return m["Raft State"] == "leader" })
		own := slices.IndexFunc(members, func(m map[string]any) bool { return m["Node Name"] == node && m["Membership"] == "voter" })
		if lead < 0 && !slices.ContainsFunc(members, func(m map[string]any) bool { return m["Term"] != 0. }) {
			return nil
		}
		if lead < 0 || own < 0 {
			return fmt.Errorf("%s has no vote, or nobody leads: %v", node, members)
		}
		if mark < 0 {
			mark, _ = members[lead]["Last Log Index"].(float64)
		}
		applied, _ := members[lead]["Last Applied"].(float64)
		written, _ := members[own]["Last Written"].(float64)
		if applied >= mark && written >= mark {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s has not caught up: %v", node, members)
		}
	}
}
