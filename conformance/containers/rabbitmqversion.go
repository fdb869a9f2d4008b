package containers

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
)

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
	m := newRabbitMQManagement("https://" + client)
	defer m.close()
	if o, err := m.overview(ctx); err == nil {
		return o.Version, nil
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
