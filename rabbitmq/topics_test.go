package rabbitmq_test

import (
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/rabbitmq"
)

// How many partitions a topic has is found by guessing, and each wrong guess is an error in the server's log: what was right a minute ago is asked first.
func TestPartitionsAreGuessedOnce(t *testing.T) {
	const parts = 40
	s := ownServer(t, "default")
	topics := []pubsub.TopicSpec{{Name: "many", Partitions: parts}}
	if err := s.open(t, nil, nil).Ensure(t.Context(), pubsub.Topology{Topics: topics}); err != nil {
		t.Fatal(err)
	}
	d := s.openDriver(t)
	var took []int64
	for range 2 {
		before := s.Traffic()
		if n, err := rabbitmq.PartsOf(t.Context(), d, "many"); n != parts || err != nil {
			t.Fatalf("it has %d partitions: %v", n, err)
		}
		took = append(took, s.Traffic().Up-before.Up)
		rabbitmq.Later(d, 2*time.Minute)
	}
	if took[1] > took[0]/4 {
		t.Errorf("asking took %d bytes, and again %d", took[0], took[1])
	}
}

// Topics that nobody has made are not remembered for ever.
func TestUnknownTopicsAreForgotten(t *testing.T) {
	t.Parallel()
	if n := rabbitmq.Unknown(1000, 2*time.Minute, 10); n != 10 {
		t.Errorf("%d topics are remembered that there are not, want the last 10", n)
	}
}
