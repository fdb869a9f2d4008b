package containers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// An access is how clients get in: what a variant adds to a node.
type access struct {
	protocol string            // of the listener for clients
	conf     string            // lines of the configuration
	files    map[string]string // that these name
	format   []string          // arguments for the first start
	opts     string            // for Java
	params   Params
	token    func(valid time.Duration) (string, error)
}

func kafkaAccess(variant string, s *site) (access, error) {
	switch variant {
	case "tls", "mtls":
		return kafkaTLS(variant == "mtls", s)
	case "oauthbearer":
		return kafkaTokens()
	case "plain":
		a := kafkaPassword("PLAIN")
		a.module("plain.PlainLoginModule", fmt.Sprintf("user_%s=%q", a.params.User, a.params.Password))
		return a, nil
	case "scram256":
		return kafkaScram("SCRAM-SHA-256"), nil
	case "scram512":
		return kafkaScram("SCRAM-SHA-512"), nil
	}
	return access{protocol: "PLAINTEXT"}, nil
}

func kafkaTLS(mutual bool, s *site) (a access, err error) {
	const keys, trusted = "/etc/kafka/omnibus-keys.pem", "/etc/kafka/omnibus-ca.pem"
	ca, err := newAuthority()
	if err != nil {
		return a, err
	}
	cert, key, err := ca.issue("kafka")
	if err != nil {
		return a, err
	}
	if a.params.CAFile, err = s.write("ca.pem", ca.pem); err != nil {
		return a, err
	}
	a.protocol, a.files = "SSL", map[string]string{keys: key + cert, trusted: ca.pem}
	a.conf = "ssl.keystore.type=PEM\nssl.keystore.location=" + keys + "\n"
	if !mutual {
		return a, nil
	}
	a.conf += "ssl.truststore.type=PEM\nssl.truststore.location=" + trusted + "\nssl.client.auth=required\n"
	if cert, key, err = ca.issue("client"); err != nil {
		return a, err
	}
	if a.params.CertFile, err = s.write("client.pem", cert); err != nil {
		return a, err
	}
	a.params.KeyFile, err = s.write("client-key.pem", key)
	return a, err
}

func kafkaPassword(mechanism string) access {
	return access{protocol: "SASL_PLAINTEXT", params: Params{Mechanism: mechanism, User: "omnibus", Password: secret()}}
}

// kafkaScram has the password among the first records of the cluster.
func kafkaScram(mechanism string) access {
	a := kafkaPassword(mechanism)
	a.format = []string{"--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", mechanism, a.params.User, a.params.Password)}
	a.module("scram.ScramLoginModule", "")
	return a
}

// kafkaTokens has signed tokens checked with a key from a file: there is nobody to ask.
func kafkaTokens() (a access, err error) {
	const keys, name = "/etc/kafka/omnibus-jwks.json", "omnibus"
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return a, err
	}
	point, err := signer.PublicKey.Bytes() // 4, x, y
	if err != nil {
		return a, err
	}
	set, err := json.Marshal(map[string]any{"keys": []map[string]string{{
		"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": name, "x": base64url(point[1:33]), "y": base64url(point[33:]),
	}}})
	if err != nil {
		return a, err
	}
	a.token = func(valid time.Duration) (string, error) {
		now := time.Now()
		return signedToken(signer, name, map[string]any{
			"iss": name, "aud": name, "sub": name, "iat": now.Add(-time.Hour).Unix(), "exp": now.Add(valid).Unix(),
		})
	}
	a.params.Mechanism = "OAUTHBEARER"
	if a.params.Token, err = a.token(24 * time.Hour); err != nil {
		return a, err
	}
	a.protocol, a.files = "SASL_PLAINTEXT", map[string]string{keys: string(set)}
	a.opts = "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file://" + keys
	a.module("oauthbearer.OAuthBearerLoginModule", "")
	a.conf += fmt.Sprintf(`listener.name.client.oauthbearer.sasl.server.callback.handler.class=org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler
sasl.oauthbearer.jwks.endpoint.url=file://%s
sasl.oauthbearer.expected.issuer=%s
sasl.oauthbearer.expected.audience=%s
listener.name.client.oauthbearer.connections.max.reauth.ms=86400000
`, keys, name, name)
	return a, nil
}

// signedToken is a JWT with ES256.
func signedToken(signer *ecdsa.PrivateKey, kid string, claims map[string]any) (string, error) {
	head, err := json.Marshal(map[string]string{"alg": "ES256", "typ": "JWT", "kid": kid})
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	text := base64url(head) + "." + base64url(body)
	digest := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, signer, digest[:])
	if err != nil {
		return "", err
	}
	var signature [64]byte
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + base64url(signature[:]), nil
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// module has a class of Kafka's ask clients for what Params.Mechanism says.
func (a *access) module(class, options string) {
	const prefix = "listener.name.client."
	name := prefix + strings.ToLower(a.params.Mechanism)
	a.conf += prefix + "sasl.enabled.mechanisms=" + a.params.Mechanism + "\n" +
		name + ".sasl.jaas.config=" + strings.TrimSpace("org.apache.kafka.common.security."+class+" required "+options) + ";\n"
}
