package kafka

import (
	"context"

	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"

	"github.com/omnibus-go/omnibus/internal/brokerurl"
)

// A scramClient is one conversation of SCRAM.
type scramClient struct {
	hash scram.HashGeneratorFcn
	*scram.ClientConversation
}

func newSCRAM256() sarama.SCRAMClient { return &scramClient{hash: scram.SHA256} }
func newSCRAM512() sarama.SCRAMClient { return &scramClient{hash: scram.SHA512} }

// Begin implements sarama.SCRAMClient.
func (s *scramClient) Begin(user, password, authzID string) error {
	c, err := s.hash.NewClient(user, password, authzID)
	if err != nil {
		return err
	}
	s.ClientConversation = c.NewConversation()
	return nil
}

// tokens reads the token of OAUTHBEARER for each connection: whoever writes the file, or the function, renews it.
type tokens struct {
	file string
	get  func(ctx context.Context) (string, error)
}

// Token implements sarama.AccessTokenProvider.
func (t tokens) Token() (*sarama.AccessToken, error) {
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	read := t.get
	if read == nil {
		read = func(context.Context) (string, error) { return brokerurl.Secret(t.file) }
	}
	token, err := read(ctx)
	if err != nil {
		return nil, err
	}
	return &sarama.AccessToken{Token: token}, nil
}
