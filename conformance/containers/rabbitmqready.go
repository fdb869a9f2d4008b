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

// rabbitmqReady asks the node's management whether the node listens to clients, which it begins last, and whether every quorum queue has a leader that
// knows all that it has: a queue without one counts no messages.
func rabbitmqReady(ctx context.Context, admin string) error {
	return manageRabbitMQ(ctx, admin, func(m rabbitmqManagement, protocol string) error {
		if err := m.ask(ctx, "/api/health/checks/protocol-listener/"+protocol, new(any)); err != nil {
			return err
		}
		queues, err := m.queues(ctx)
		if err != nil {
			return err
		}
		for _, q := range queues {
			if q.Type != "quorum" {
				continue
			}
			if err := m.led(ctx, q); err != nil {
				return fmt.Errorf("queue %s: %w", q.Name, err)
			}
		}
		return nil
	})
}

// rabbitmqRegained asks the node's management whether the node has a vote in every quorum queue, and a copy of every stream.
func rabbitmqRegained(ctx context.Context, admin string) error {
	return manageRabbitMQ(ctx, admin, func(m rabbitmqManagement, _ string) error {
		o, err := m.overview(ctx)
		if err != nil {
			return err
		}
		queues, err := m.queues(ctx)
		if err != nil || len(queues) == 0 {
			return err
		}
		for _, q := range queues {
			switch q.Type {
			case "quorum":
				err = m.voting(ctx, q, o.Node)
			case "stream":
				if !slices.Contains(q.Online, o.Node) {
					err = errors.New("no copy")
				}
			}
			if err != nil {
				return fmt.Errorf("queue %s on %s: %w", q.Name, o.Node, err)
			}
		}
		// A server writes down which parts of queues it has up to a second after it has got them. Those of one that is killed before are gone, while
		// the others go on to count on it.
		select {
		case <-time.After(2 * time.Second):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// manageRabbitMQ has a node's management asked, which has TLS where clients have it; their protocol is called otherwise then.
func manageRabbitMQ(ctx context.Context, admin string, ask func(m rabbitmqManagement, protocol string) error) error {
	var errs []error
	for _, secured := range []string{"", "s"} {
		m := newRabbitMQManagement("http" + secured + "://" + admin)
		err := ask(m, "amqp"+secured)
		m.close()
		if err == nil || ctx.Err() != nil {
			return err
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
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

const (
	errUntold    = constant("that is not told")
	errUnelected = constant("no member has ever heard of an election")
)

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
	case slices.Contains([]int{http.StatusNotFound, http.StatusBadRequest, http.StatusInternalServerError}, resp.StatusCode):
		return fmt.Errorf("%w: %s: %s", errUntold, path, resp.Status)
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
	err = m.ask(ctx, "/api/overview?disable_stats=true", &o)
	return o, err
}

// A rabbitmqQueue is a queue of any type.
type rabbitmqQueue struct {
	Name, Vhost, Type string
	Online            []string // the nodes with a copy of it
}

func (m rabbitmqManagement) queues(ctx context.Context) (all []rabbitmqQueue, err error) {
	err = m.ask(ctx, "/api/queues?disable_stats=true&columns=name,vhost,type,online", &all)
	return all, err
}

// A rabbitmqMember is a node's part in a quorum queue.
type rabbitmqMember map[string]any

func (m rabbitmqMember) number(name string) int {
	n, _ := m[name].(float64) // a member that is away has a text for each
	return int(n)
}

// members fails with errUntold if there is no such queue any more, if a member is away, and always in 3.10. It fails with errUnelected where that
// does not change any more: the servers of such a queue were killed too soon after it was declared.
func (m rabbitmqManagement) members(ctx context.Context, q rabbitmqQueue) (all []rabbitmqMember, leader int, err error) {
	err = m.ask(ctx, "/api/queues/quorum/"+url.PathEscape(q.Vhost)+"/"+url.PathEscape(q.Name)+"/status", &all)
	if err != nil {
		return nil, -1, err
	}
	leader = slices.IndexFunc(all, func(m rabbitmqMember) bool { return m["Raft State"] == "leader" })
	if leader < 0 && !slices.ContainsFunc(all, func(m rabbitmqMember) bool { return m.number("Term") > 0 }) {
		return nil, -1, errUnelected
	}
	return all, leader, nil
}

// led returns once the leader of a quorum queue has read all that it had written when it was first asked.
func (m rabbitmqManagement) led(ctx context.Context, q rabbitmqQueue) error {
	for mark := -1; ; {
		members, leader, err := m.members(ctx, q)
		switch {
		case errors.Is(err, errUntold) || errors.Is(err, errUnelected):
			return nil
		case err != nil:
			return err
		case leader < 0:
			return fmt.Errorf("nobody leads: %v", members)
		case mark < 0:
			mark = members[leader].number("Last Log Index")
		}
		if members[leader].number("Last Applied") >= mark {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the leader has not read all: %v", members)
		}
	}
}

// voting fails while a node has no vote in a quorum queue: it gets that once it has what the leader has.
func (m rabbitmqManagement) voting(ctx context.Context, q rabbitmqQueue, node string) error {
	members, leader, err := m.members(ctx, q)
	switch {
	case errors.Is(err, errUnelected):
		return nil
	case err != nil:
		return err
	case leader < 0 || !slices.ContainsFunc(members, func(m rabbitmqMember) bool { return m["Node Name"] == node && m["Membership"] == "voter" }):
		return fmt.Errorf("no vote: %v", members)
	}
	return nil
}
