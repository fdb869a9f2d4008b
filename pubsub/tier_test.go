package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A tiersTest is a consumer whose handler fails as fail says, and what it has seen.
type tiersTest struct {
	*pubsub.Broker
	d     *tiersOnly
	s     *memory.Server
	mu    sync.Mutex
	calls []pubsub.Delivery
	at    []time.Time
}

func inTiers(t *testing.T, s pubsub.Subscription, fail func(d *pubsub.Delivery) error, change ...func(d *tiersOnly)) (*tiersTest, *pubsub.Consumer) {
	t.Helper()
	x := &tiersTest{s: memory.NewServer(memory.Config{})}
	x.d = newTiersOnly(x.s)
	for _, f := range change {
		f(x.d)
	}
	b, err := pubsub.New(t.Context(), x.d, nil)
	if err != nil {
		t.Fatal(err)
	}
	x.Broker = b
	t.Cleanup(func() { b.Close() })
	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "t.a"}, {Name: "t"}}}); err != nil {
		t.Fatal(err)
	}
	return x, x.subscribe(t, b, s, fail)
}

func (x *tiersTest) subscribe(t *testing.T, b *pubsub.Broker, s pubsub.Subscription, fail func(d *pubsub.Delivery) error) *pubsub.Consumer {
	t.Helper()
	if s.Topic == "" {
		s.Topic = "t"
	}
	s.Group = "g"
	c, err := b.Subscribe(t.Context(), s, func(_ context.Context, d *pubsub.Delivery) error {
		x.mu.Lock()
		x.calls, x.at = append(x.calls, *d), append(x.at, time.Now())
		x.mu.Unlock()
		return fail(d)
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (x *tiersTest) publish(t *testing.T, topic string, m pubsub.Message) {
	t.Helper()
	if err := x.Publish(t.Context(), topic, m); err != nil {
		t.Fatal(err)
	}
}

// onceAfter fails each message at its first attempt, to come again after d.
func onceAfter(d time.Duration) func(*pubsub.Delivery) error {
	return func(x *pubsub.Delivery) error {
		if x.Attempt == 1 {
			return pubsub.RetryAfter(d, errors.New("later"))
		}
		return nil
	}
}

// pass lets so much time go by, and waits for what it brings.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// A retry takes the longest tiers first, comes to the nanosecond, and is the message that it was.
func TestRetryGoesThroughTiers(t *testing.T) {
	const s, m = time.Second, time.Minute
	for delay, want := range map[time.Duration][]time.Duration{
		400 * time.Millisecond: nil,
		s:                      {s},
		7 * s:                  {5 * s, s, s},
		75 * s:                 {30 * s, 30 * s, 5 * s, 5 * s, 5 * s},
		13 * time.Hour:         {6 * time.Hour, 6 * time.Hour, time.Hour},
		3*m + 700*s/1000:       {2 * m, 30 * s, 30 * s},
	} {
		synctest.Test(t, func(t *testing.T) {
			x, c := inTiers(t, pubsub.Subscription{Topic: "t.*", Order: pubsub.OrderNone}, onceAfter(delay))
			sent := pubsub.Message{Key: "k", Payload: []byte("p"), Type: "y", Priority: 3, TTL: 48 * time.Hour, Delay: time.Second,
				Headers: pubsub.Headers{{Name: "a", Value: "1"}, {Name: "a", Value: ""}}}
			x.publish(t, "t.a", sent)
			pass(delay + 2*time.Second)
			if len(x.calls) != 2 || x.at[1].Sub(x.at[0]) != delay {
				t.Fatalf("after %v there were %d calls at %v", delay, len(x.calls), x.at)
			}
			if !slices.Equal(x.d.tiers, want) {
				t.Errorf("a retry after %v took the tiers %v, want %v", delay, x.d.tiers, want)
			}
			first, second := x.calls[0], x.calls[1]
			if !reflect.DeepEqual(first.Message, second.Message) || first.Topic != second.Topic || first.Position != second.Position || second.Attempt != 2 {
				t.Errorf("the message was %+v of %s at %v, and is %+v of %s at %v, attempt %d",
					first.Message, first.Topic, first.Position, second.Message, second.Topic, second.Position, second.Attempt)
			}
			if st := c.State(); st.InFlight != 0 || st.Waiting != 0 {
				t.Errorf("at the end the state is %+v", st)
			}
			if lag, err := x.Lag(t.Context(), "t.*", "g"); err != nil || lag.Messages != 0 {
				t.Errorf("at the end the lag is %+v, %v", lag, err)
			}
		})
	}
}

// What is no topic of ours goes through tiers as it is: the pattern of a message that was sent to its group alone, and what others call theirs.
func TestTopicTextGoesThroughTiers(t *testing.T) {
	toGroup := func(t *testing.T, x *tiersTest) {
		t.Helper()
		if err := x.DeliverTo(t.Context(), "t.*", "g", pubsub.Message{}); err != nil {
			t.Fatal(err)
		}
	}
	resent := func(t *testing.T, x *tiersTest) {
		t.Helper()
		x.Resend(t.Context(), pubsub.Place{Topic: "t.*", Group: "g", Kind: pubsub.PlaceRetry}, pubsub.Message{}, pubsub.Dedup{1}, func(_ pubsub.Receipt, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	published := func(t *testing.T, x *tiersTest) { t.Helper(); x.publish(t, "t.a", pubsub.Message{}) }
	for name, tt := range map[string]struct {
		called string
		send   func(*testing.T, *tiersTest)
		topic  string
	}{
		"delivered to a pattern's group":  {"", toGroup, "t.*"},
		"sent again to it":                {"", resent, "t.*"},
		"a double underscore":             {"t.a__b", published, "t.a__b"},
		"spaces":                          {"t. a ", published, "t. a "},
		"what an escape looks like":       {"t.%20+%", published, "t.%20+%"},
		"no text":                         {"t.\x00\xff\n", published, "t.\x00\xff\n"},
		"what the pattern does not cover": {"u.a", published, "t.*"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x, _ := inTiers(t, pubsub.Subscription{Topic: "t.*", Order: pubsub.OrderNone}, onceAfter(time.Hour), func(d *tiersOnly) { d.called = tt.called })
				tt.send(t, x)
				pass(2 * time.Hour)
				if len(x.calls) != 2 || x.at[1].Sub(x.at[0]) != time.Hour {
					t.Fatalf("%d calls at %v, want the second after an hour", len(x.calls), x.at)
				}
				if !slices.Equal(x.d.tiers, []time.Duration{time.Hour}) {
					t.Errorf("it took the tiers %v", x.d.tiers)
				}
				for i, d := range x.calls {
					if d.Topic != tt.topic || d.Position == (pubsub.Position{}) || d.Position != x.calls[0].Position || d.Attempt != i+1 {
						t.Errorf("attempt %d is of %q at %v, attempt %d", i+1, d.Topic, d.Position, d.Attempt)
					}
				}
			})
		})
	}
}

// When everything fails again and again, after all sorts of delays, what is retried soon does not hold up the rest.
func TestTiersUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const messages, attempts, late = 1000, 6, 3 * time.Second
		var mu sync.Mutex
		due, worst := map[string]time.Time{}, time.Duration(0)
		x, c := inTiers(t, pubsub.Subscription{Order: pubsub.OrderNone, Concurrency: 16}, func(d *pubsub.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			if at, again := due[d.ID]; again {
				if worst = max(worst, time.Since(at)); time.Now().Before(at) {
					t.Errorf("%v early", time.Until(at))
				}
			}
			if d.Attempt == attempts {
				return nil
			}
			delay := rand.N(8 * time.Second)
			due[d.ID] = time.Now().Add(delay)
			return pubsub.RetryAfter(delay, errors.New("again"))
		})
		for range messages {
			x.publish(t, "t", pubsub.Message{})
		}
		pass(time.Hour)
		if len(x.calls) != messages*attempts {
			t.Errorf("%d calls, want %d", len(x.calls), messages*attempts)
		}
		if worst > late {
			t.Errorf("a retry came %v late, want at most %v", worst, late)
		}
		if st := c.State(); st.InFlight != 0 {
			t.Errorf("at the end the state is %+v", st)
		}
		t.Logf("a retry came %v late at the most", worst)
	})
}

// With LeaseMax of 20 s a message is not left in somebody's hand for longer than half of it.
func TestTiersKeepToTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, _ := inTiers(t, pubsub.Subscription{Order: pubsub.OrderNone}, onceAfter(time.Minute), func(d *tiersOnly) { d.wait = 20 * time.Second })
		x.publish(t, "t", pubsub.Message{})
		pass(2 * time.Minute)
		if len(x.calls) != 2 || x.at[1].Sub(x.at[0]) != time.Minute || slices.Max(x.d.tiers) != 5*time.Second {
			t.Errorf("%d calls at %v through %v", len(x.calls), x.at, x.d.tiers)
		}
	})
}

// A policy that holds a message for longer than its lease is refused, by the field that it stands in.
func TestTooLongDelayIsNamed(t *testing.T) {
	d := newTiersOnly(memory.NewServer(memory.Config{}))
	d.wait = 20 * time.Second
	b, err := pubsub.New(t.Context(), d, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	short, long := pubsub.Policy{Max: 10 * time.Second}, pubsub.Policy{Delays: []time.Duration{time.Minute}}
	for field, s := range map[string]pubsub.Subscription{
		"Subscription.Retry with":          {Retry: long},
		"Subscription.Rules[1].Retry with": {Retry: short, Rules: []pubsub.Rule{{When: func(error) bool { return true }, Retry: short}, {When: func(error) bool { return true }, Retry: long}}},
	} {
		s.Topic, s.Group = "t", "g"
		if _, err := b.Subscribe(t.Context(), s, func(context.Context, *pubsub.Delivery) error { return nil }); !errors.Is(err, pubsub.ErrUnsupported) || !strings.Contains(err.Error(), field) {
			t.Errorf("%v, want ErrUnsupported that names %s", err, field)
		}
	}
}

// A dead letter tells of the message that was published, not of its last copy.
func TestDeadLetterFromATier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := pubsub.Policy{MaxAttempts: 3, Delays: []time.Duration{4 * time.Second}}
		x, _ := inTiers(t, pubsub.Subscription{Topic: "t.*", Order: pubsub.OrderNone, Retry: policy}, func(*pubsub.Delivery) error { return errors.New("no") })
		x.publish(t, "t.a", pubsub.Message{Key: "k", Payload: []byte("p"), Headers: pubsub.Headers{{Name: "a", Value: "1"}}})
		pass(time.Minute)
		if len(x.calls) != 3 {
			t.Fatalf("%d calls, want 3", len(x.calls))
		}
		n := 0
		for r, err := range x.Browse(t.Context(), pubsub.Place{Topic: "t.*", Group: "g", Kind: pubsub.PlaceDead}, pubsub.Position{}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
			h := r.Msg.Headers
			if h.Get("omnibus-dlq-source-topic") != "t.a" || h.Get("omnibus-dlq-source-position") != x.calls[0].Position.String() ||
				h.Get("omnibus-dlq-attempts") != "3" || h.Get("omnibus-retry") != "" || h.Get("a") != "1" {
				t.Errorf("its headers are %v", h)
			}
		}
		if n != 1 {
			t.Errorf("%d dead letters, want 1", n)
		}
	})
}

// A TTL goes on in a tier: it is the message's, not the copy's.
func TestTTLEndsInATier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, _ := inTiers(t, pubsub.Subscription{Order: pubsub.OrderNone}, onceAfter(40*time.Second))
		x.publish(t, "t", pubsub.Message{Key: "ends", TTL: 39 * time.Second})
		x.publish(t, "t", pubsub.Message{Key: "stays", TTL: 41 * time.Second})
		pass(time.Minute)
		if len(x.calls) != 3 || x.calls[2].Key != "stays" {
			t.Errorf("%d calls, the last with %q", len(x.calls), x.calls[len(x.calls)-1].Key)
		}
	})
}

// While copies cannot be stored the message waits where it is, and comes in time.
func TestTierThatTakesNothing(t *testing.T) {
	for _, order := range []pubsub.Order{pubsub.OrderNone, pubsub.OrderByKeyLoose} {
		synctest.Test(t, func(t *testing.T) {
			x, c := inTiers(t, pubsub.Subscription{Order: order}, onceAfter(time.Minute), func(d *tiersOnly) { d.refuse = true })
			x.publish(t, "t", pubsub.Message{Key: "k"})
			x.publish(t, "t", pubsub.Message{Key: "k"})
			pass(90 * time.Second)
			if len(x.calls) != 4 || x.at[2].Sub(x.at[0]) != time.Minute || len(x.d.tiers) > 0 {
				t.Errorf("%d calls at %v", len(x.calls), x.at)
			}
			if st := c.State(); st.InFlight != 0 || st.Phase != pubsub.Running {
				t.Errorf("at the end the state is %+v", st)
			}
		})
	}
}

// A crash between copy and ack leaves both: the message comes twice, and is not lost. The second copy is no duplicate of the first to the broker.
func TestCrashBetweenCopyAndAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, _ := inTiers(t, pubsub.Subscription{Order: pubsub.OrderNone}, onceAfter(3*time.Second), func(d *tiersOnly) { d.deaf = true })
		x.publish(t, "t", pubsub.Message{ID: "m"})
		pass(time.Minute)
		attempts := []int{}
		for _, d := range x.calls {
			attempts = append(attempts, d.Attempt)
		}
		if want := []int{1, 1, 2, 2}; !slices.Equal(attempts, want) {
			t.Errorf("the attempts were %v, want %v", attempts, want)
		}
	})
}

// What fails while the consumer drains, and what waits in it for less than a tier, keeps its attempts and its time.
func TestDrainKeepsAttempts(t *testing.T) {
	for _, delay := range []time.Duration{500 * time.Millisecond, 10 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			fails := func(d *pubsub.Delivery) error {
				if d.Key == "slow" && d.Attempt == 1 {
					time.Sleep(200 * time.Millisecond)
				}
				return onceAfter(delay)(d)
			}
			x, c := inTiers(t, pubsub.Subscription{Order: pubsub.OrderNone, Concurrency: 2}, fails)
			x.publish(t, "t", pubsub.Message{Key: "slow"})
			x.publish(t, "t", pubsub.Message{Key: "quick"})
			pass(100 * time.Millisecond)
			if err := c.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			x.subscribe(t, x.Broker, pubsub.Subscription{Order: pubsub.OrderNone}, fails)
			pass(30 * time.Second)
			if len(x.calls) != 4 {
				t.Fatalf("%d calls, want 4", len(x.calls))
			}
			began := map[string]time.Time{}
			for i, d := range x.calls {
				if d.Attempt == 1 {
					began[d.Key] = x.at[i]
					continue
				}
				took := x.at[i].Sub(began[d.Key])
				if d.Key == "slow" {
					took -= 200 * time.Millisecond
				}
				if d.Attempt != 2 || took != delay {
					t.Errorf("message %q comes with attempt %d after %v, want the second after %v", d.Key, d.Attempt, took, delay)
				}
			}
		})
	}
}

// What waits in a member for less than a tier keeps its attempts and its time when its lane goes to another.
func TestLaneThatGoesKeepsAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keys, delay = 20, 800 * time.Millisecond
		s := pubsub.Subscription{Topic: "lanes", Order: pubsub.OrderByKeyLoose}
		x, _ := inTiers(t, pubsub.Subscription{}, onceAfter(delay))
		if err := x.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "lanes", Partitions: 4}}}); err != nil {
			t.Fatal(err)
		}
		x.subscribe(t, x.Broker, s, onceAfter(delay))
		for i := range keys {
			x.publish(t, "lanes", pubsub.Message{Key: fmt.Sprint(i)})
		}
		pass(100 * time.Millisecond)
		b, err := pubsub.New(t.Context(), newTiersOnly(x.s), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		x.subscribe(t, b, s, onceAfter(delay))
		pass(time.Minute)
		if len(x.calls) != 2*keys {
			t.Fatalf("%d calls, want %d", len(x.calls), 2*keys)
		}
		for i, d := range x.calls[keys:] {
			if took := x.at[keys+i].Sub(x.at[0]); d.Attempt != 2 || took != delay {
				t.Errorf("message %s comes with attempt %d after %v, want the second after %v", d.Key, d.Attempt, took, delay)
			}
		}
		if len(x.d.tiers) == 0 {
			t.Error("nothing was moved: no lane went")
		}
	})
}

// A member whose clock is ahead keeps nobody else's retries waiting for longer than the tier is.
func TestTierOfAClockThatIsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, _ := inTiers(t, pubsub.Subscription{Order: pubsub.OrderNone, MaxInFlight: 1}, onceAfter(5*time.Second))
		p, err := x.s.Driver().OpenProducer(t.Context(), pubsub.ProducerSpec{}, func([]pubsub.Result) {})
		if err != nil {
			t.Fatal(err)
		}
		hour := time.Now().Add(time.Hour).UTC().Format(time.RFC3339Nano)
		ahead := pubsub.Message{ID: "ahead", Headers: pubsub.Headers{{Name: "omnibus-retry", Value: hour + " " + hour + " t - 0s 0"}}}
		if _, err := p.Send(t.Context(), []pubsub.Out{{To: pubsub.Place{Topic: "t", Group: "g", Kind: pubsub.PlaceRetry, Tier: 5 * time.Second}, Msg: &ahead}}); err != nil {
			t.Fatal(err)
		}
		x.publish(t, "t", pubsub.Message{ID: "ours"})
		pass(30 * time.Minute)
		if len(x.calls) != 2 || x.at[1].Sub(x.at[0]) > 11*time.Second {
			t.Errorf("within half an hour %d calls at %v", len(x.calls), x.at)
		}
		pass(31 * time.Minute)
		if len(x.calls) < 3 || x.calls[2].ID != "ahead" {
			t.Errorf("the other message has not come after its hour: %d calls", len(x.calls))
		}
	})
}

// The header of a copy says nothing outside a tier, and none gets to see it.
func TestForgedRetryHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, _ := inTiers(t, pubsub.Subscription{Order: pubsub.OrderNone}, func(*pubsub.Delivery) error { return nil })
		hour := time.Now().Add(time.Hour).UTC().Format(time.RFC3339Nano)
		for _, value := range []string{hour + " " + hour + " t 1.0.0.0 0s 0", "", "a b c d e f", "x"} {
			m := pubsub.Message{Headers: pubsub.Headers{{Name: "omnibus-retry", Value: value}, {Name: "omnibus-attempts", Value: "7"}}}
			x.Resend(t.Context(), pubsub.Place{Topic: "t"}, m, pubsub.Dedup{}, func(pubsub.Receipt, error) {})
		}
		pass(time.Second)
		if len(x.calls) != 4 {
			t.Fatalf("%d calls, want 4", len(x.calls))
		}
		for _, d := range x.calls {
			if d.Attempt != 1 || len(d.Headers) > 0 {
				t.Errorf("attempt %d with headers %v", d.Attempt, d.Headers)
			}
		}
	})
}

// What a message fails of before it takes processes down counts: it is started as often as its policy says, and at most twice more.
func TestKillerInATier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := pubsub.Policy{MaxAttempts: 4, Delays: []time.Duration{3 * time.Second}}
		s := pubsub.Subscription{Topic: "t", Group: "g", Order: pubsub.OrderNone, Retry: policy}
		server := memory.NewServer(memory.Config{})
		var mu sync.Mutex
		starts := 0
		for i := range 12 {
			d := newTiersOnly(server)
			b, err := pubsub.New(t.Context(), d, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = b.Subscribe(t.Context(), s, func(ctx context.Context, d *pubsub.Delivery) error {
				mu.Lock()
				starts++
				n := starts
				mu.Unlock()
				if n <= 2 {
					return fmt.Errorf("failure %d", n)
				}
				<-ctx.Done()
				return ctx.Err()
			})
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				if err := b.Publish(t.Context(), "t", pubsub.Message{}); err != nil {
					t.Fatal(err)
				}
			}
			pass(time.Minute)
			d.Driver.Close(t.Context()) // the process is gone
			b.Close()
		}
		b := open(t, server)
		defer b.Close()
		n := 0
		for r, err := range b.Browse(t.Context(), pubsub.Place{Topic: "t", Group: "g", Kind: pubsub.PlaceDead}, pubsub.Position{}) {
			if err != nil {
				t.Fatal(err)
			}
			if why := r.Msg.Headers.Get("omnibus-dlq-reason"); why != "process-killer" {
				t.Errorf("the reason is %q", why)
			}
			n++
		}
		if n != 1 || starts > policy.MaxAttempts+2 {
			t.Errorf("%d dead letters after %d starts", n, starts)
		}
	})
}
