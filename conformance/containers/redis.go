package containers

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// redisKind is Redis that writes each command to the disk before it answers. Every variant but "cluster" and "sentinel" is one node.
func redisKind() kind {
	return kind{
		name:     "redis",
		image:    "redis:8.0",
		variants: []string{"default", "cluster", "sentinel", "tls", "mtls", "acl", "8.6", "7.0", "valkey"},
		versions: map[string]string{"8.6": "redis:8.6", "7.0": "redis:7.0", "valkey": "valkey/valkey:9.1"},
		plan:     planRedis,
		ready:    redisReady,
		version:  redisVersion,
	}
}

const (
	redisData   = "/data" // where Redis keeps what it stores, and the settings that it rewrites itself
	redisConfig = "/etc/redis/omnibus.conf"

	// RedisMaster is what the sentinels of the variant "sentinel" call the server that they watch.
	RedisMaster = "omnibus"

	// RedisLimited is another user of the variant "acl", with the same password, who may neither read settings nor touch keys but those of topics
	// that begin with RedisGranted; and not their dead letters.
	RedisLimited = "limited"
	RedisGranted = "granted" // see RedisLimited

	redisProbe = "omnibus-probe" // may ask nothing but how the server is
)

func planRedis(variant string, s *site) (*plan, error) {
	p := &plan{scheme: "redis"}
	switch variant {
	case "cluster":
		p.scheme, p.nodes = "redis+cluster", redisCluster(s)
		return p, nil
	case "sentinel":
		p.scheme, p.nodes, p.tail = "redis+sentinel", redisSentinel(s), "/"+RedisMaster
		return p, nil
	}
	n := nodePlan{client: s.publish(6379), files: map[string]string{}}
	n.admin, n.front = n.client, s.front(n.client)
	conf := "bind 0.0.0.0\nport 6379\n"
	var err error
	switch variant {
	case "tls", "mtls":
		n.admin = s.publish(6380)
		conf, err = redisTLS(variant == "mtls", s, &n, &p.params)
		p.scheme = "rediss"
	case "acl":
		p.params = Params{User: "omnibus", Password: secret()}
		conf += redisUsers(p.params)
	}
	n.configureRedis(redisConfig, conf+redisDurable)
	if variant == "valkey" {
		n.cmd[0] = "valkey-server"
	}
	p.nodes = []nodePlan{n}
	return p, err
}

// redisDurable writes each command to the disk before it is answered.
const redisDurable = `dir ` + redisData + `
protected-mode no
save ""
appendonly yes
appendfsync always
`

func (p *nodePlan) configureRedis(path, conf string, more ...string) {
	if p.files == nil {
		p.files = map[string]string{}
	}
	p.files[path] = conf
	p.cmd = append([]string{"redis-server", path}, more...)
}

// redisTLS has TLS on the clients' port, and none on that of ready.
func redisTLS(mutual bool, s *site, n *nodePlan, p *Params) (conf string, err error) {
	ca, err := newAuthority()
	if err != nil {
		return "", err
	}
	cert, key, err := ca.issue("redis")
	if err != nil {
		return "", err
	}
	n.files["/etc/redis/ca.pem"], n.files["/etc/redis/cert.pem"], n.files["/etc/redis/key.pem"] = ca.pem, cert, key
	conf = `bind 0.0.0.0
port 6380
tls-port 6379
tls-ca-cert-file /etc/redis/ca.pem
tls-cert-file /etc/redis/cert.pem
tls-key-file /etc/redis/key.pem
`
	if p.CAFile, err = s.write("ca.pem", ca.pem); err != nil || !mutual {
		return conf + "tls-auth-clients no\n", err
	}
	if cert, key, err = ca.issue("client"); err != nil {
		return "", err
	}
	if p.CertFile, err = s.write("client.pem", cert); err != nil {
		return "", err
	}
	p.KeyFile, err = s.write("client-key.pem", key)
	return conf + "tls-auth-clients yes\n", err
}

func redisUsers(p Params) string {
	var granted strings.Builder
	for _, kind := range []string{"topic", "group", "members", "due", "lease", "retry", "quarantine", "seen", "later"} {
		granted.WriteString(" ~omnibus." + kind + ".{" + RedisGranted + "*")
	}
	// The default user is off, and has rights all the same: with them servers before 8.6 load what transactions have written, and what it may not do they lose.
	return fmt.Sprintf(`user default off ~* &* +@all
user %s on >%s ~* &* +@all
user %s on >%[2]s ~%[4]s* ~{%[4]s*%s &* +@all -config
user %s on >%[6]s resetkeys -@all +ping +info
`, p.User, p.Password, RedisLimited, RedisGranted, granted.String(), redisProbe)
}

// redisCluster is three masters with a replica each. They know each other from the start: who comes back without its data comes back as a member.
func redisCluster(s *site) []nodePlan {
	const masters, size, slots = 3, 6, 16384
	var nodes [size]nodePlan
	var bus [size]int
	var ids [size]string
	var shards [masters]string // a master whose file names no shard gets one, and leaves itself out when it tells of it
	for i := range shards {
		shards[i] = redisNodeID()
	}
	for i := range nodes {
		client := s.port()
		nodes[i] = nodePlan{hostNetwork: true, client: port{client, client}, admin: port{client, client}}
		nodes[i].front, bus[i], ids[i] = s.front(nodes[i].client), s.port(), redisNodeID()
	}
	for me := range nodes {
		var known strings.Builder
		for i := range nodes {
			flags := ""
			if i == me {
				flags = "myself,"
			}
			at := fmt.Sprintf("%s %s@%d,,shard-id=%s %s", ids[i], local(nodes[i].front), bus[i], shards[i%masters], flags)
			if i >= masters {
				fmt.Fprintf(&known, "%sslave %s 0 0 %d connected\n", at, ids[i%masters], i%masters+1)
			} else {
				fmt.Fprintf(&known, "%smaster - 0 0 %d connected %d-%d\n", at, i+1, i*slots/masters, (i+1)*slots/masters-1)
			}
		}
		fmt.Fprintf(&known, "vars currentEpoch %d lastVoteEpoch 0\n", masters)
		n := &nodes[me]
		n.files = map[string]string{redisData + "/nodes.conf": known.String()}
		n.configureRedis(redisConfig, fmt.Sprintf(`bind 127.0.0.1
port %d
cluster-enabled yes
cluster-config-file nodes.conf
cluster-node-timeout 2000
cluster-port %d
cluster-announce-ip 127.0.0.1
cluster-announce-port %d
cluster-announce-bus-port %[2]d
repl-diskless-sync-delay 0
repl-timeout 5
repl-ping-replica-period 1
`, n.client.inside, bus[me], n.front)+redisDurable)
		n.afterOthers()
	}
	return nodes[:]
}

// afterOthers has a node that was wiped begin only when the others have given it up and its replica has taken over: as long as it is the master the
// replica would throw away what it has, to have as little.
func (p *nodePlan) afterOthers() {
	p.cmd = append([]string{"sh", "-c", `test -z "$` + wipedVariable + `" || test -e ` + redisData + `/appendonlydir || sleep 5; exec "$@"`, "redis"}, p.cmd...)
}

func redisNodeID() string {
	var id [20]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// redisSentinel is a server, its replica, and three sentinels that watch them. Clients begin with the sentinels.
func redisSentinel(s *site) []nodePlan {
	const servers, size = 2, 5
	var nodes [size]nodePlan
	for i := range nodes {
		client := s.port()
		nodes[i] = nodePlan{hostNetwork: true, client: port{client, client}, admin: port{client, client}, inner: i < servers}
		nodes[i].front = s.front(nodes[i].client)
	}
	for i := range nodes {
		n := &nodes[i]
		conf := fmt.Sprintf("bind 127.0.0.1\nport %d\n", n.client.inside)
		if i >= servers {
			n.configureRedis(redisData+"/sentinel.conf", conf+fmt.Sprintf(`dir %s
protected-mode no
sentinel announce-ip 127.0.0.1
sentinel announce-port %d
sentinel monitor %s 127.0.0.1 %d 2
sentinel down-after-milliseconds %[3]s 2000
sentinel failover-timeout %[3]s 6000
`, redisData, n.front, RedisMaster, nodes[0].front), "--sentinel")
			continue
		}
		conf += fmt.Sprintf(`replica-announce-ip 127.0.0.1
replica-announce-port %d
repl-diskless-sync-delay 0
repl-timeout 5
repl-ping-replica-period 1
`, n.front)
		if i > 0 {
			conf += fmt.Sprintf("replicaof 127.0.0.1 %d\n", nodes[0].front)
		}
		n.configureRedis(redisData+"/redis.conf", conf+redisDurable)
		n.afterOthers()
	}
	return nodes[:]
}

// redisReady asks the node itself: that it has loaded what it stores and, among several, that it is in touch with the others and in sync.
func redisReady(ctx context.Context, admin string) error {
	info, err := redisInfo(ctx, admin, nil)
	if err != nil {
		return err
	}
	missing := func(what string) error { return fmt.Errorf("%s: %s", admin, what) }
	switch {
	case info["loading"] == "1":
		return missing("it is loading")
	case info["redis_mode"] == "sentinel":
		if m := info["master0"]; !strings.Contains(m, "status=ok") || !strings.Contains(m, "slaves=1,sentinels=3") {
			return missing("it sees " + m)
		}
		_, err = askRedis(ctx, admin, nil, "SENTINEL DEBUG tilt-period 1000") // one that was paused would look on for 30 s
		return err
	case info["role"] == "slave" && info["master_link_status"] != "up":
		return missing("a replica without its master")
	}
	question, together := "CONFIG GET replica-announce-port", func(reply string) bool { return reply != "" && !strings.HasSuffix(reply, "\n0") }
	if info["cluster_enabled"] == "1" {
		question, together = "CLUSTER INFO", func(reply string) bool { return strings.Contains(reply, "cluster_state:ok") }
	}
	replies, err := askRedis(ctx, admin, nil, question)
	switch {
	case errors.Is(err, errNoAuth): // it is alone
		return nil
	case err != nil:
		return err
	case info["cluster_enabled"] == "1" && !together(replies[0]):
		return missing("the cluster is not complete")
	case together(replies[0]) && info["role"] == "master" && !strings.Contains(info["slave0"], "state=online"):
		return missing("a master without its replica")
	}
	return nil
}

// redisVersion asks the server, with TLS if it wants that: "8.0.2". It is "" where it tells that to nobody without credentials.
func redisVersion(ctx context.Context, client string) (string, error) {
	info, err := redisInfo(ctx, client, nil)
	if errors.Is(err, errNotRedis) || errors.Is(err, io.EOF) || err != nil && strings.Contains(err.Error(), "reset by peer") {
		info, err = redisInfo(ctx, client, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // nothing is said that matters
		if err != nil && strings.Contains(err.Error(), "certificate required") {
			return "", nil
		}
	}
	if errors.Is(err, errNoAuth) {
		return "", nil
	}
	if v := info["valkey_version"]; v != "" {
		return v, err
	}
	if err == nil && info["redis_version"] == "" {
		err = errNotRedis
	}
	return info["redis_version"], err
}

const (
	errNotRedis = constant("containers: this is not what Redis says")
	errNoAuth   = constant("containers: Redis wants credentials")
)

// redisInfo is what INFO tells, by name.
func redisInfo(ctx context.Context, addr string, secured *tls.Config) (map[string]string, error) {
	replies, err := askRedis(ctx, addr, secured, "INFO")
	if errors.Is(err, errNoAuth) {
		if replies, err = askRedis(ctx, addr, secured, "AUTH "+redisProbe+" "+redisProbe, "INFO"); errors.Is(err, errRedisSays) {
			err = errNoAuth // a server of somebody else's
		}
	}
	if err != nil {
		return nil, err
	}
	info := map[string]string{}
	for line := range strings.SplitSeq(replies[len(replies)-1], "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok {
			info[name] = value
		}
	}
	return info, nil
}

const errRedisSays = constant("containers: Redis refuses")

// askRedis sends commands one after another, and returns their answers as text.
func askRedis(ctx context.Context, addr string, secured *tls.Config, commands ...string) (replies []string, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if secured != nil {
		conn = tls.Client(conn, secured)
	}
	r := bufio.NewReader(io.LimitReader(conn, 1<<20))
	for _, c := range commands {
		if _, err := io.WriteString(conn, c+"\r\n"); err != nil {
			return nil, err
		}
		reply, err := readRedis(r)
		if err != nil {
			return nil, err
		}
		replies = append(replies, reply)
	}
	return replies, nil
}

// readRedis reads an answer; the parts of a list are its lines.
func readRedis(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSpace(line)
	if line == "" {
		return "", errNotRedis
	}
	n, notNumber := strconv.Atoi(line[1:])
	switch line[0] {
	case '+', ':':
		return line[1:], nil
	case '-':
		if strings.HasPrefix(line, "-NOAUTH") {
			return "", errNoAuth
		}
		return "", fmt.Errorf("%w: %s", errRedisSays, line[1:])
	case '$', '*':
		if notNumber != nil || n > 1<<20 {
			return "", errNotRedis
		}
	default:
		return "", errNotRedis
	}
	if line[0] == '$' {
		text := make([]byte, max(n, 0)+2)
		if n < 0 {
			return "", nil
		}
		_, err = io.ReadFull(r, text)
		return string(text[:n]), err
	}
	var parts []string
	for range n {
		part, err := readRedis(r)
		if err != nil {
			return "", err
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "\n"), nil
}
