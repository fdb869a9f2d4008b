package kafka_test

import (
	"errors"
	"io"
	"maps"
	"math"
	"reflect"
	"testing"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

// outletTopic is the topic of the tests in which the test is the leader.
const outletTopic = "orders"

func lead(t *testing.T, partitions int) *kafka.Leader {
	t.Helper()
	return kafka.NewLeader(t, outletTopic, partitions)
}

func publishTo(t *testing.T, l *kafka.Leader, seqs ...uint64) {
	t.Helper()
	for _, seq := range seqs {
		if err := l.Send(t.Context(), seq, pubsub.Place{Topic: outletTopic}, "k"); err != nil {
			t.Fatal(err)
		}
	}
}

func wantFates(t *testing.T, l *kafka.Leader, want map[uint64]pubsub.Fate) {
	t.Helper()
	if got := l.Fates(); !maps.Equal(got, want) {
		t.Errorf("the fates are %v, want %v", got, want)
	}
}

func wantBatch(t *testing.T, l *kafka.Leader, first int32, seqs ...uint64) {
	t.Helper()
	want := map[int32]kafka.SentBatch{0: {First: first, Seqs: seqs}}
	if got := l.Receive(); !reflect.DeepEqual(got, want) {
		t.Fatalf("received %v, want %v", got, want)
	}
}

// TestRefusalAfterNoAnswer: a batch that may be stored is never called refused, and its sequence number is not used for another one: the leader would
// take that for the first, and say that it has stored it.
func TestRefusalAfterNoAnswer(t *testing.T) {
	t.Parallel()
	for _, refusal := range []sarama.KError{sarama.ErrTopicAuthorizationFailed, sarama.ErrMessageSizeTooLarge, sarama.ErrInvalidTimestamp} {
		l := lead(t, 1)
		publishTo(t, l, 1, 2)
		wantBatch(t, l, 0, 1, 2)
		l.Break(true, io.ErrUnexpectedEOF)
		wantFates(t, l, map[uint64]pubsub.Fate{})
		wantBatch(t, l, 0, 1, 2)
		publishTo(t, l, 3)
		l.Answer(outletTopic, map[int32]sarama.KError{0: refusal})
		wantFates(t, l, map[uint64]pubsub.Fate{1: pubsub.FateUnknown, 2: pubsub.FateUnknown, 3: pubsub.FateRefused})
		if err := l.Send(t.Context(), 4, pubsub.Place{Topic: outletTopic}, "k"); err == nil {
			t.Errorf("after %v the session goes on", refusal)
		}
	}
}

// TestUnclearAnswer: an answer that is not a refusal leaves open whether the batch is stored.
func TestUnclearAnswer(t *testing.T) {
	t.Parallel()
	for _, fault := range []sarama.KError{sarama.ErrUnknown, sarama.ErrOutOfOrderSequenceNumber, sarama.ErrInvalidProducerEpoch, sarama.KError(999)} {
		l := lead(t, 1)
		publishTo(t, l, 1)
		wantBatch(t, l, 0, 1)
		l.Answer(outletTopic, map[int32]sarama.KError{0: fault})
		wantFates(t, l, map[uint64]pubsub.Fate{1: pubsub.FateUnknown})
	}
}

// TestRefusal: a clear refusal leaves the sequence number to the next batch, also after attempts that stored nothing for certain.
func TestRefusal(t *testing.T) {
	t.Parallel()
	l := lead(t, 1)
	publishTo(t, l, 1)
	wantBatch(t, l, 0, 1)
	l.Answer(outletTopic, nil)
	publishTo(t, l, 2)
	wantBatch(t, l, 1, 2)
	l.Break(false, sarama.ErrSASLAuthenticationFailed) // of a new connection: not what the leader says of the batch
	wantBatch(t, l, 1, 2)
	l.Answer(outletTopic, map[int32]sarama.KError{0: sarama.ErrNotEnoughReplicas})
	wantFates(t, l, map[uint64]pubsub.Fate{1: pubsub.FateAccepted})
	wantBatch(t, l, 1, 2)
	l.Answer(outletTopic, map[int32]sarama.KError{0: sarama.ErrTopicAuthorizationFailed})
	publishTo(t, l, 3)
	wantBatch(t, l, 1, 3)
	l.Answer(outletTopic, nil)
	wantFates(t, l, map[uint64]pubsub.Fate{2: pubsub.FateRefused, 3: pubsub.FateAccepted})
}

// TestBatchSplits: one message that a leader does not take is refused alone.
func TestBatchSplits(t *testing.T) {
	t.Parallel()
	for fault, want := range map[sarama.KError]pubsub.Code{
		sarama.ErrMessageSizeTooLarge: pubsub.ErrTooLarge, sarama.ErrMessageSetSizeTooLarge: pubsub.ErrTooLarge,
		sarama.ErrInvalidRecord: pubsub.ErrInvalid, sarama.ErrInvalidTimestamp: pubsub.ErrInvalid,
	} {
		l := lead(t, 1)
		publishTo(t, l, 1, 2, 3)
		for _, step := range []struct {
			seqs    []uint64
			first   int32
			refused bool
		}{{[]uint64{1, 2, 3}, 0, true}, {[]uint64{1}, 0, false}, {[]uint64{2, 3}, 1, true}, {[]uint64{2}, 1, true}, {[]uint64{3}, 1, false}} {
			wantBatch(t, l, step.first, step.seqs...)
			if !step.refused {
				l.Answer(outletTopic, nil)
				continue
			}
			l.Fates() // those of what came before
			l.Answer(outletTopic, map[int32]sarama.KError{0: fault})
			if len(step.seqs) > 1 {
				continue
			}
			if code, final := kafka.Classify(l.Err()); code != want || !final {
				t.Errorf("refused with %v, which is %v", l.Err(), code)
			}
			wantFates(t, l, map[uint64]pubsub.Fate{2: pubsub.FateRefused})
		}
		wantFates(t, l, map[uint64]pubsub.Fate{3: pubsub.FateAccepted})
	}
}

// TestVanishedTopic: what was to go to a topic that vanished is refused unless it may be stored, and the sequence goes on.
func TestVanishedTopic(t *testing.T) {
	t.Parallel()
	l := lead(t, 1)
	publishTo(t, l, 1)
	wantBatch(t, l, 0, 1)
	l.Answer(outletTopic, nil)
	publishTo(t, l, 2)
	wantBatch(t, l, 1, 2)
	l.Answer(outletTopic, map[int32]sarama.KError{0: sarama.ErrUnknownTopicOrPartition})
	l.Vanish()
	wantFates(t, l, map[uint64]pubsub.Fate{1: pubsub.FateAccepted, 2: pubsub.FateRefused})
	publishTo(t, l, 3)
	wantBatch(t, l, 1, 3)
	l.Break(true, errors.New("reset"))
	l.Vanish()
	wantFates(t, l, map[uint64]pubsub.Fate{3: pubsub.FateUnknown})
}

// TestTurnsGoRound sends more messages without a key than an int32 counts.
func TestTurnsGoRound(t *testing.T) {
	t.Parallel()
	l := lead(t, 3)
	l.Turn(math.MaxInt32 - 2)
	for seq := range uint64(8) {
		if err := l.Send(t.Context(), seq, pubsub.Place{Topic: outletTopic}, ""); err != nil {
			t.Fatal(err)
		}
	}
	if got := l.Receive(); len(got) != 3 {
		t.Errorf("8 messages without a key went to the partitions %v", got)
	}
}

// TestTierWithoutPartitions: a topic of tiers that somebody else has made may have too few.
func TestTierWithoutPartitions(t *testing.T) {
	t.Parallel()
	place := pubsub.Place{Kind: pubsub.PlaceRetry, Topic: outletTopic, Group: "g", Tier: pubsub.Tiers()[0]}
	l := kafka.NewLeader(t, kafka.TopicOf(place), 3)
	if err := l.Send(t.Context(), 1, place, ""); err != nil {
		t.Fatal(err)
	}
	if code, final := kafka.Classify(l.Err()); code != pubsub.ErrConflict || !final {
		t.Errorf("refused with %v, which is %v", l.Err(), code)
	}
	wantFates(t, l, map[uint64]pubsub.Fate{1: pubsub.FateRefused})
}

// TestFaultBesideSuccess: a fault that ends the session leaves what the same answer accepts accepted, wherever it stands.
func TestFaultBesideSuccess(t *testing.T) {
	t.Parallel()
	for bad := range int32(3) {
		l := lead(t, 3)
		for seq := range uint64(3) {
			if err := l.Send(t.Context(), seq, pubsub.Place{Topic: outletTopic}, ""); err != nil {
				t.Fatal(err)
			}
		}
		want := map[uint64]pubsub.Fate{}
		for partition, b := range l.Receive() {
			want[b.Seqs[0]] = pubsub.FateAccepted
			if partition == bad {
				want[b.Seqs[0]] = pubsub.FateUnknown
			}
		}
		l.Answer(outletTopic, map[int32]sarama.KError{bad: sarama.ErrOutOfOrderSequenceNumber})
		wantFates(t, l, want)
	}
}
