package containers

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// rabbitmqReady asks the node's management: that it listens to clients, which it begins last.
func rabbitmqReady(ctx context.Context, admin string) error {
	const attempt = 5 * time.Second // a node that is busy with another one may not answer
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
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

func rabbitmqServes(ctx context.Context, management, protocol string) error {
	return askRabbitMQ(ctx, management+"/api/health/checks/protocol-listener/"+protocol, new(any))
}

// askRabbitMQ asks a node's management.
func askRabbitMQ(ctx context.Context, url string, answer any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	req.SetBasicAuth(rabbitmqWatcher, rabbitmqWatcher)
	direct := &http.Transport{ // past the proxies of the environment
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // it is told nothing that is secret
	}
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
		return fmt.Errorf("%s: %s: %.200s", url, resp.Status, text)
	}
	return json.Unmarshal(text, answer)
}

// rabbitmqVersion reads what the server says first to who speaks AMQP, with TLS if it wants that. It is "" where TLS asks for a certificate:
// then the management tells, of which that may be the address.
func rabbitmqVersion(ctx context.Context, client string) (string, error) {
	version, err := greetRabbitMQ(ctx, client, nil)
	if err == nil || ctx.Err() != nil {
		return version, err
	}
	var mutual atomic.Bool
	version, secured := greetRabbitMQ(ctx, client, &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // it is told nothing
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			mutual.Store(true)
			return new(tls.Certificate), nil
		},
	})
	if secured == nil || mutual.Load() {
		return version, nil
	}
	var overview struct {
		Version string `json:"rabbitmq_version"`
	}
	if askRabbitMQ(ctx, "https://"+client+"/api/overview?disable_stats=true", &overview) == nil {
		return overview.Version, nil
	}
	return "", errors.Join(err, secured)
}

// greetRabbitMQ begins a connection of AMQP and returns the version in the server's first words.
func greetRabbitMQ(ctx context.Context, addr string, secured *tls.Config) (string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if secured != nil {
		conn = tls.Client(conn, secured)
	}
	if _, err := io.WriteString(conn, "AMQP\x00\x00\x09\x01"); err != nil {
		return "", err
	}
	// One frame: its type, channel 0, its size, the method connection.start, two numbers of the protocol's version, the server's properties.
	r := bufio.NewReader(conn)
	var head struct {
		Type          uint8
		Channel       uint16
		Size          uint32
		Class, Method uint16
		Protocol      [2]uint8
		Properties    uint32 // their size
	}
	if err := binary.Read(r, binary.BigEndian, &head); err != nil {
		return "", err
	}
	if head.Type != 1 || head.Channel != 0 || head.Class != 10 || head.Method != 10 || head.Properties > 1<<16 {
		return "", fmt.Errorf("%s does not speak AMQP 0-9-1", addr)
	}
	properties := make([]byte, head.Properties)
	if _, err := io.ReadFull(r, properties); err != nil {
		return "", err
	}
	_, after, ok := strings.Cut(string(properties), "\x07versionS") // a name of seven letters with a text
	if !ok || len(after) < 4 || len(after)-4 < int(binary.BigEndian.Uint32([]byte(after[:4]))) {
		return "", fmt.Errorf("%s does not say which version it is", addr)
	}
	return after[4 : 4+binary.BigEndian.Uint32([]byte(after[:4]))], nil
}
