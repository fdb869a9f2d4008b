package containers

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// natsKind is NATS with JetStream on files. Every variant but "cluster" is one node.
func natsKind() kind {
	return kind{
		name:     "nats",
		image:    "nats:2.15.2",
		variants: []string{"default", "cluster", "tls", "mtls", "token", "userpass", "nkey", "creds"},
		plan:     planNATS,
		ready:    natsReady,
		version:  natsVersion,
	}
}

const natsConfig = "/etc/nats/omnibus.conf"

func planNATS(variant string, s *site) (*plan, error) {
	p := &plan{scheme: "nats"}
	if variant == "cluster" {
		p.nodes = natsCluster(s)
		return p, nil
	}
	auth, files, params, err := natsAuth(variant, s)
	if err != nil {
		return nil, err
	}
	n := nodePlan{client: s.publish(4222), admin: s.publish(8222), files: files}
	n.front = s.front(n.client)
	n.configureNATS("0.0.0.0", "nats-0", auth)
	p.nodes, p.params = []nodePlan{n}, params
	return p, nil
}

func natsCluster(s *site) []nodePlan {
	const size = 3
	var nodes []nodePlan
	var routes []string
	var listen []int
	for range size {
		client, admin, route := s.port(), s.port(), s.port()
		n := nodePlan{hostNetwork: true, client: port{client, client}, admin: port{admin, admin}}
		n.front = s.front(n.client)
		nodes = append(nodes, n)
		listen = append(listen, route)
		routes = append(routes, "nats://"+local(route))
	}
	for i := range nodes {
		nodes[i].configureNATS("127.0.0.1", fmt.Sprintf("nats-%d", i), fmt.Sprintf(
			"cluster { name: omnibus, listen: %q, routes: [%s] }\n", local(listen[i]), strings.Join(routes, ", ")))
	}
	return nodes
}

// configureNATS writes the node's configuration. What it announces to clients is its front, never an address of the container.
func (p *nodePlan) configureNATS(host, name, more string) {
	if p.files == nil {
		p.files = map[string]string{}
	}
	p.files[natsConfig] = fmt.Sprintf(`server_name: %s
listen: "%s:%d"
http: "%s:%d"
client_advertise: %q
jetstream { store_dir: "/data" }
%s`, name, host, p.client.inside, host, p.admin.inside, local(p.front), more)
	p.cmd = []string{"-c", natsConfig}
}

// Of the variant userpass: another user, with the same password, who may not publish to dead letters nor to that topic.
const (
	NATSLimited   = "limited"   // the user
	NATSForbidden = "forbidden" // the topic
)

// natsAuth returns what a variant adds to the configuration, the files that this names, and what clients need to know.
func natsAuth(variant string, s *site) (conf string, files map[string]string, p Params, err error) {
	switch variant {
	case "tls", "mtls":
		return natsTLS(variant == "mtls", s)
	case "token":
		p.Token = secret()
		conf = fmt.Sprintf("authorization { token: %q }\n", p.Token)
	case "userpass":
		p.User, p.Password = "omnibus", secret()
		conf = fmt.Sprintf(`authorization { users: [
  { user: %q, password: %q }
  { user: %q, password: %[2]q, permissions: { publish: { deny: ["omnibus.dead.>", %[4]q] } } }
] }
`, p.User, p.Password, NATSLimited, NATSForbidden)
	case "nkey":
		user, err := newKey(nkeys.CreateUser)
		if err != nil {
			return "", nil, p, err
		}
		conf = fmt.Sprintf("authorization { users: [ { nkey: %s } ] }\n", user.public)
		p.SeedFile, err = s.write("user.nk", user.seed)
		return conf, nil, p, err
	case "creds":
		return natsCreds(s)
	}
	return conf, nil, p, nil
}

func natsTLS(mutual bool, s *site) (conf string, files map[string]string, p Params, err error) {
	ca, err := newAuthority()
	if err != nil {
		return "", nil, p, err
	}
	cert, key, err := ca.issue("nats")
	if err != nil {
		return "", nil, p, err
	}
	if p.CAFile, err = s.write("ca.pem", ca.pem); err != nil {
		return "", nil, p, err
	}
	files = map[string]string{"/etc/nats/ca.pem": ca.pem, "/etc/nats/cert.pem": cert, "/etc/nats/key.pem": key}
	conf = `tls { cert_file: "/etc/nats/cert.pem", key_file: "/etc/nats/key.pem" }` + "\n"
	if !mutual {
		return conf, files, p, nil
	}
	conf = `tls { cert_file: "/etc/nats/cert.pem", key_file: "/etc/nats/key.pem", ca_file: "/etc/nats/ca.pem", verify: true }` + "\n"
	if cert, key, err = ca.issue("client"); err != nil {
		return "", nil, p, err
	}
	if p.CertFile, err = s.write("client.pem", cert); err != nil {
		return "", nil, p, err
	}
	p.KeyFile, err = s.write("client-key.pem", key)
	return conf, files, p, err
}

// natsCreds sets up an operator with a system account, an account with JetStream, and a user of it.
func natsCreds(s *site) (conf string, files map[string]string, p Params, err error) {
	operator, err := newKey(nkeys.CreateOperator)
	if err != nil {
		return "", nil, p, err
	}
	system, err := newKey(nkeys.CreateAccount)
	if err != nil {
		return "", nil, p, err
	}
	account, err := newKey(nkeys.CreateAccount)
	if err != nil {
		return "", nil, p, err
	}
	user, err := newKey(nkeys.CreateUser)
	if err != nil {
		return "", nil, p, err
	}

	oc := jwt.NewOperatorClaims(operator.public)
	oc.SystemAccount = system.public
	ac := jwt.NewAccountClaims(account.public)
	ac.Name = "omnibus"
	ac.Limits.JetStreamLimits = jwt.JetStreamLimits{
		MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit,
		MaxAckPending: jwt.NoLimit, MemoryMaxStreamBytes: jwt.NoLimit, DiskMaxStreamBytes: jwt.NoLimit,
	}
	sc := jwt.NewAccountClaims(system.public)
	sc.Name = "system"
	uc := jwt.NewUserClaims(user.public)

	var errs []error
	sign := func(c jwt.Claims, by signer) string {
		token, err := c.Encode(by.pair)
		errs = append(errs, err)
		return token
	}
	conf = fmt.Sprintf("operator: %s\nsystem_account: %s\nresolver: MEMORY\nresolver_preload { %s: %s, %s: %s }\n",
		sign(oc, operator), system.public, system.public, sign(sc, operator), account.public, sign(ac, operator))
	creds, err := jwt.FormatUserConfig(sign(uc, account), []byte(user.seed))
	if err := errors.Join(append(errs, err)...); err != nil {
		return "", nil, p, err
	}
	p.CredsFile, err = s.write("user.creds", string(creds))
	return conf, nil, p, err
}

// A signer is an NKey.
type signer struct {
	pair         nkeys.KeyPair
	public, seed string
}

func newKey(create func() (nkeys.KeyPair, error)) (signer, error) {
	pair, err := create()
	if err != nil {
		return signer{}, err
	}
	public, err := pair.PublicKey()
	if err != nil {
		return signer{}, err
	}
	seed, err := pair.Seed()
	return signer{pair, public, string(seed)}, err
}

// natsReady asks the monitoring port: that JetStream has a leader and what it stores is there.
func natsReady(ctx context.Context, admin string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/healthz", http.NoBody)
	if err != nil {
		return err
	}
	direct := &http.Transport{DisableKeepAlives: true} // past the proxies of the environment
	resp, err := direct.RoundTrip(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("healthz: %s: %s", resp.Status, text)
	}
	return nil
}

// natsVersion reads what the server says first, before TLS and without credentials.
func natsVersion(ctx context.Context, client string) (string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", client)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	line, err := bufio.NewReader(io.LimitReader(conn, 1<<20)).ReadString('\n')
	if err != nil {
		return "", err
	}
	text, ok := strings.CutPrefix(line, "INFO ")
	var info struct{ Version string }
	if err := json.Unmarshal([]byte(text), &info); !ok || err != nil || info.Version == "" {
		return "", fmt.Errorf("%s does not speak NATS: %.60q", client, line)
	}
	return info.Version, nil
}
