package rabbitmq_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/rabbitmq"
)

// consumers counts those of a queue.
func (s *server) consumers(t *testing.T, queue string) (n int) {
	t.Helper()
	s.must(t, func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		n = q.Consumers
		return err
	})
	return n
}

// events takes the lane events that have come to a source.
func events(t *testing.T, src pubsub.Source) []pubsub.LaneEvent {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, list, err := src.Recv(ctx, nil, 0)
	if err != nil && ctx.Err() == nil {
		t.Fatal(err)
	}
	return list
}

// A session that dies while it attaches a lane leaves no consumer behind: it would keep the messages, and in an exclusive group the queue, from all others.
func TestDeathWhileAttaching(t *testing.T) {
	s := startServer(t, "default")
	d := s.openDriver(t)
	b := s.open(t, nil, nil)
	for _, order := range []pubsub.Order{pubsub.OrderNone, pubsub.OrderByKey} {
		topic := fmt.Sprintf("dies.%d", order)
		spec := pubsub.SourceSpec{From: pubsub.Place{Topic: topic, Group: "g"}, Order: order, AckWait: time.Minute, MaxInFlight: 10, MaxInFlightBytes: 1 << 20, Member: "m"}
		src := source(t, d, spec)
		if err := rabbitmq.AttachDead(t.Context(), src); err == nil {
			t.Error("a dead session has attached a lane")
		}
		if err := src.Close(t.Context()); err != nil {
			t.Error(err)
		}
		poll.Until(t, "the consumers to be gone", func() bool { return s.consumers(t, topic+"__g") == 0 })
		next := source(t, d, spec)
		publish(t, b, topic, "a")
		settle(t, next, pubsub.Settlement{Token: recv(t, next, 1)[0].Token, As: pubsub.SettleAck})
		if err := next.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// A lane that a member has given up is not its own before it is attached again, whoever looks meanwhile and finds the member alone.
func TestLaneOnItsWay(t *testing.T) {
	s := ownServer(t, "default")
	topics := []pubsub.TopicSpec{{Name: "handed", Partitions: 2}}
	if err := s.open(t, nil, nil).Ensure(t.Context(), pubsub.Topology{Topics: topics}); err != nil {
		t.Fatal(err)
	}
	spec := pubsub.SourceSpec{From: pubsub.Place{Topic: "handed", Group: "g"}, Order: pubsub.OrderByKey, AckWait: time.Minute, MaxInFlight: 10, MaxInFlightBytes: 1 << 20, Member: "a"}
	src := source(t, s.openDriver(t), spec)
	spec.Member = "b"
	other := source(t, s.openDriver(t), spec)
	var losing pubsub.LaneEvent
	poll.Until(t, "the lane that is the other member's now", func() bool {
		for _, ev := range events(t, src) {
			if ev.Kind == pubsub.LaneLosing {
				losing = ev
			}
		}
		return losing.Kind == pubsub.LaneLosing
	})
	if err := s.Pause(t.Context()); err != nil { // so that the lane is on its way for a while
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- src.LaneDone(t.Context(), losing) }()
	poll.Until(t, "the lane to be given up", func() bool { return rabbitmq.Away(src) == 1 })
	rabbitmq.Share(src, 1)
	for _, ev := range events(t, src) {
		t.Errorf("while the lane is on its way: %+v", ev)
	}
	if err := s.Unpause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if rabbitmq.Away(src) != 0 {
		t.Error("the lane is attached, and away still")
	}
	for _, src := range []pubsub.Source{src, other} {
		if err := src.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// A queue may lose sight of a consumer whose client is told nothing of that. What comes then is handled all the same, when the lane has been silent for a while.
func TestConsumerForgotten(t *testing.T) {
	s := startServer(t, "default")
	d := s.openDriver(t)
	b := s.open(t, nil, nil)
	for _, order := range []pubsub.Order{pubsub.OrderNone, pubsub.OrderByKey} {
		topic := fmt.Sprintf("forgotten.%d", order)
		queue := topic + "__g"
		spec := pubsub.SourceSpec{From: pubsub.Place{Topic: topic, Group: "g"}, Order: order, AckWait: time.Minute, MaxInFlight: 10, MaxInFlightBytes: 1 << 20, Member: "m"}
		src := source(t, d, spec)
		publish(t, b, topic, "first")
		first := recv(t, src, 1)[0]
		settle(t, src, pubsub.Settlement{Token: first.Token, As: pubsub.SettleAck})
		s.ctl(t, "eval", `{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"`+queue+`">>)),
			[{ok, _, _} = ra:process_command(amqqueue:get_pid(Q), rabbit_fifo:make_checkout({element(2, C), element(1, C)}, cancel, #{})) || C <- rabbit_amqqueue:consumers(Q)].`)
		poll.Until(t, "the queue to have no consumer", func() bool { return s.consumers(t, queue) == 0 })
		publish(t, b, topic, "second")
		if err := rabbitmq.Silent(t.Context(), src); err != nil {
			t.Fatal(err)
		}
		second := recv(t, src, 1)[0]
		if second.Msg.ID != "second" || second.Deliveries != 1 {
			t.Errorf("order %v: %s came, delivery %d", order, second.Msg.ID, second.Deliveries)
		}
		if err := rabbitmq.Silent(t.Context(), src); err != nil { // it holds a message now, and is left alone
			t.Fatal(err)
		}
		settle(t, src, pubsub.Settlement{Token: second.Token, As: pubsub.SettleAck})
		if err := src.Sync(t.Context()); err != nil {
			t.Error(err)
		}
		if err := src.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
