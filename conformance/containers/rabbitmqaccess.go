package containers

import (
	"encoding/json"
	"fmt"
	"net/url"
)

// A rabbitmqAccess is how clients get in: what a variant adds to a node.
type rabbitmqAccess struct {
	scheme      string // of the URL
	path        string // of the URL: the virtual host; "" is "/"
	conf        string // lines of the configuration
	plugins     []string
	files       map[string]string
	definitions string // users and what they may do
	params      Params
}

const (
	rabbitmqWatcher   = "omnibus-watcher"   // asks the management for this package; it may use nothing
	rabbitmqCertified = "omnibus-certified" // has no password, only a certificate

	rabbitmqCA   = "/etc/rabbitmq/omnibus-ca.pem"
	rabbitmqCert = "/etc/rabbitmq/omnibus-cert.pem"
	rabbitmqKey  = "/etc/rabbitmq/omnibus-key.pem"
)

func newRabbitMQAccess(variant string, s *site) (a rabbitmqAccess, err error) {
	a.scheme = "amqp"
	user, password, vhost := "guest", "guest", "/" // as a server has them that nobody has configured
	switch variant {
	case "tls", "mtls":
		if a, err = rabbitmqTLS(variant == "mtls", s); err != nil {
			return a, err
		}
	case "userpass":
		a.params.User, a.params.Password = "omnibus", secret()
	case "vhost":
		vhost = "team/a"
		a.path = "/" + url.PathEscape(vhost)
	}
	if a.params.User != "" {
		user, password = a.params.User, a.params.Password
	}
	certified := map[string]string{"name": rabbitmqCertified, "password_hash": "", "tags": ""} // no password is right
	definitions, err := json.Marshal(map[string]any{
		"vhosts": []map[string]string{{"name": vhost}},
		"users": []map[string]string{
			{"name": user, "password": password, "tags": "administrator"},
			{"name": rabbitmqWatcher, "password": rabbitmqWatcher, "tags": "monitoring"},
			certified,
		},
		"permissions": []map[string]string{
			permission(user, vhost, ".*"), permission(rabbitmqCertified, vhost, ".*"),
			permission(rabbitmqWatcher, vhost, ""), // without any, no queue is shown
		},
	})
	a.definitions = string(definitions)
	return a, err
}

// permission lets a user make, write and read what has a name that the pattern matches; "" matches none.
func permission(user, vhost, pattern string) map[string]string {
	return map[string]string{"user": user, "vhost": vhost, "configure": pattern, "write": pattern, "read": pattern}
}

// rabbitmqTLS has TLS for clients and for the management. With mutual, clients are who their certificate says.
func rabbitmqTLS(mutual bool, s *site) (a rabbitmqAccess, err error) {
	ca, err := newAuthority()
	if err != nil {
		return a, err
	}
	cert, key, err := ca.issue("rabbitmq")
	if err != nil {
		return a, err
	}
	if a.params.CAFile, err = s.write("ca.pem", ca.pem); err != nil {
		return a, err
	}
	a.scheme = "amqps"
	a.files = map[string]string{rabbitmqCA: ca.pem, rabbitmqCert: cert, rabbitmqKey: key}
	if !mutual {
		return a, nil
	}
	a.plugins = []string{"rabbitmq_auth_mechanism_ssl"}
	a.conf = `ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
ssl_cert_login_from = common_name
auth_mechanisms.1 = EXTERNAL
`
	a.params.Mechanism = "EXTERNAL"
	if cert, key, err = ca.issue(rabbitmqCertified); err != nil {
		return a, err
	}
	if a.params.CertFile, err = s.write("client.pem", cert); err != nil {
		return a, err
	}
	a.params.KeyFile, err = s.write("client-key.pem", key)
	return a, err
}

// listeners configures where clients and the management are listened to.
func (a rabbitmqAccess) listeners(host string, client, management int) string {
	if a.files == nil {
		return fmt.Sprintf("listeners.tcp.1 = %s:%d\nmanagement.tcp.ip = %s\nmanagement.tcp.port = %d\n", host, client, host, management) + a.conf
	}
	return fmt.Sprintf(`listeners.tcp = none
listeners.ssl.1 = %s:%d
ssl_options.cacertfile = %[3]s
ssl_options.certfile = %[4]s
ssl_options.keyfile = %[5]s
management.ssl.ip = %[1]s
management.ssl.port = %[6]d
management.ssl.cacertfile = %[3]s
management.ssl.certfile = %[4]s
management.ssl.keyfile = %[5]s
`, host, client, rabbitmqCA, rabbitmqCert, rabbitmqKey, management) + a.conf
}
