package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/pubsub"
)

// What the tests of the wire format, of the names, of tracks and of plans look into.
var (
	PartitionOf = partitionOf
	TopicOf     = topicOf
	GroupID     = groupID
	Span        = span
	Silent      = silent{}
	Classify    = classify
)

// HeadersOf are the headers of a message on the wire.
func HeadersOf(m *pubsub.Message) (all []sarama.RecordHeader) {
	for _, h := range records([]sent{{msg: m}}).Records[0].Headers {
		all = append(all, *h)
	}
	return all
}

// Decode reads a record with a key, a value and headers.
func Decode(key, value []byte, h []sarama.RecordHeader, at time.Time) *pubsub.Message {
	r := &sarama.Record{Key: key, Value: value}
	for i := range h {
		r.Headers = append(r.Headers, &h[i])
	}
	return decode(&entry{rec: r, time: at})
}

// Times reads times as one reader of many messages.
func Times(texts ...string) (all []time.Time) {
	r := reader{many: true}
	for _, text := range texts {
		all = append(all, r.time([]byte(text)))
	}
	return all
}

// DecodeAll reads payloads as one reader of many messages.
func DecodeAll(payloads ...[]byte) (all []*pubsub.Message) {
	r := reader{many: true}
	for i, p := range payloads {
		h := &sarama.RecordHeader{Key: fmt.Append(nil, "name", i), Value: fmt.Append(nil, "value", i)}
		all = append(all, r.message(&entry{rec: &sarama.Record{Key: fmt.Append(nil, "key", i), Value: p, Headers: []*sarama.RecordHeader{h}}}))
	}
	return all
}

// A Track is a track of offsets.
type Track struct{ t track }

// Add delivers a message, or one that was settled before.
func (t *Track) Add(offset int64, settled bool) uint64 {
	f := flight{offset: offset, state: flightOut}
	if settled {
		f.state = flightDone
	}
	return t.t.add(f)
}

// Done settles a message.
func (t *Track) Done(number uint64) { t.t.done(number) }

// Knows says whether a message is there and with the engine.
func (t *Track) Knows(number uint64) bool {
	f := t.t.at(number)
	return f != nil && f.state == flightOut
}

// Head is the offset of the first message that is not settled, -1 if there is none.
func (t *Track) Head() int64 {
	if f := t.t.head(); f != nil {
		return f.offset
	}
	return -1
}

// Out is how many messages are with the engine, Chunks how many chunks have memory.
func (t *Track) Out() int { return t.t.out }

// Chunks is how many chunks have memory.
func (t *Track) Chunks() (n int) {
	for i := range t.t.chunks {
		if t.t.chunks[i].list != nil {
			n++
		}
	}
	return n
}

// Runs are the first and last offsets of what is settled beyond the head.
func (t *Track) Runs() (all [][2]int64) {
	for _, r := range t.t.settled() {
		all = append(all, [2]int64{r.from, r.to})
	}
	return all
}

// MarkWithin is the runs that are committed by a log that stands at an offset, with a stretch from before it that is settled.
func MarkWithin(offset, from, to int64) (runs [][2]int64) {
	l := &plog{ln: &lane{}, offset: offset, startsAt: -1, free: true, skip: []run{{from, to}}}
	text, _ := l.mark(false)
	for _, r := range parseMark(offset, text).runs {
		runs = append(runs, [2]int64{r.from, r.to})
	}
	return runs
}

// OpenOffsets is how many offsets are not settled.
func OpenOffsets(from, end int64, settled [][2]int64) int64 {
	var runs []run
	for _, r := range settled {
		runs = append(runs, run{r[0], r[1]})
	}
	return open(from, end, runs)
}

// MarkText writes commit metadata, ParseMark reads it.
func MarkText(offset int64, starts int32, failed map[int64]int32, runs [][2]int64) string {
	m := mark{starts: starts}
	for _, r := range runs {
		m.runs = append(m.runs, run{r[0], r[1]})
	}
	var list []failure
	for o := offset; len(list) < len(failed); o++ {
		if n, ok := failed[o]; ok {
			list = append(list, failure{o, n})
		}
	}
	return m.text(offset, list)
}

// ParseMark reads commit metadata.
func ParseMark(offset int64, text string) (starts int32, failed map[int64]int32, runs [][2]int64) {
	m := parseMark(offset, text)
	for _, r := range m.runs {
		runs = append(runs, [2]int64{r.from, r.to})
	}
	return m.starts, m.failed, runs
}

// CommitRefused is what a member makes of a commit that is answered with an error, while it is in the generation in which it asked: again, or fenced.
func CommitRefused(e sarama.KError) (again, fenced bool) {
	m := &member{generation: 1}
	err := m.refused(&sarama.OffsetCommitResponse{Errors: map[string]map[int32]sarama.KError{"t": {0: e}}}, 1)
	return errors.Is(err, sarama.ErrRebalanceInProgress), errors.Is(err, errFenced)
}

// Plan shares partitions 0 to n-1 of a topic and one partition of another. owned is what members have, by number, since generations.
func Plan(owned map[string][]int32, since map[string]int32, n int32) map[string][]int32 {
	members := map[string]claim{}
	for id, parts := range owned {
		members[id] = claim{map[string][]int32{"t": parts}, since[id]}
	}
	units := make([]unit, n)
	for i := range units {
		units[i] = unit{"t", int32(i)}
	}
	result := map[string][]int32{}
	given, _ := plan(members, [][]unit{units})
	for id, list := range given {
		for _, u := range list {
			result[id] = append(result[id], u.partition)
		}
	}
	return result
}

// SizeOf is how much room a record without a key takes.
func SizeOf(value []byte, headers int) int64 {
	r := &sarama.Record{Value: value}
	for range headers {
		r.Headers = append(r.Headers, &sarama.RecordHeader{})
	}
	return sizeOf(r)
}

// Withhold are the partitions of a topic with n that are shared while somebody has parts of what is sent to the group alone as units of their own.
func Withhold(n int32, held []int32) (left []int32) {
	units := make([]unit, n)
	for i := range units {
		units[i] = unit{"t", int32(i)}
	}
	for _, u := range withhold(units, map[string]claim{"a": {Owned: map[string][]int32{"r": held}}}, "t", "r") {
		left = append(left, u.partition)
	}
	return left
}

// Misses is what a member says of a topic that is not there, at first and when it has been so for a time.
func Misses(after time.Duration) (first, later error) {
	m := &member{}
	first = m.misses("t")
	m.missing = m.missing.Add(-after)
	return first, m.misses("t")
}

// Parse is how many records a response has from an offset on, and where the next fetch begins.
func Parse(b *sarama.FetchResponseBlock, from int64) (records int, next int64) {
	all, next := parse(b, from, true)
	return len(all), next
}

// Messages are those of a response, made by one reader.
func Messages(b *sarama.FetchResponseBlock) (all []*pubsub.Message) {
	r := reader{many: true}
	list, _ := parse(b, 0, true)
	for i := range list {
		all = append(all, r.message(&list[i]))
	}
	return all
}

// FetchFrom makes a fetch at an address; bad says that its answer makes no sense.
func FetchFrom(ctx context.Context, address string) (bad bool, err error) {
	conf := sarama.NewConfig()
	conf.Version, conf.ApiVersionsRequest = sarama.V2_7_0_0, false
	d := &driver{base: conf, life: ctx, brokers: map[int32]string{1: address}}
	f := &fetcher{m: &member{d: d, life: ctx}, key: fetcherKey{broker: 1}}
	_, err = f.fetch(d.fetchRequest(longWait))
	_, bad = errors.AsType[*unreadable](err)
	return bad, err
}

// Broken lets a log's fetches be answered by a block alone, and says whether it waits before it asks again.
func Broken(b *sarama.FetchResponseBlock, times int) bool {
	f := &fetcher{m: &member{d: &driver{}}, kick: make(chan struct{}, 1)}
	l := &plog{ln: &lane{}, offset: 5, startsAt: -1}
	for range times {
		f.one(l, b)
	}
	return !l.broken.IsZero()
}

// Asks is which topics a member's fetches ask for, by whether they are for private places, and for how long they wait each time that nothing comes. The
// partition of its topic has a response that is not delivered, if full.
func Asks(full bool, times int) (topics map[bool][]string, waits []time.Duration) {
	m := &member{d: &driver{base: sarama.NewConfig()}, place: pubsub.Place{Topic: "t", Group: "g"}, lanes: map[unit]*lane{}}
	for p := range int32(2) { // the second one is at its end
		u := unit{"t", p}
		m.lanes[u] = m.newLane(u)
		m.lanes[u].src = &source{spec: pubsub.SourceSpec{MaxInFlightBytes: 1 << 20}}
	}
	if full {
		m.lanes[unit{"t", 0}].logs[0].bytes = 1 << 30
	}
	m.eachLog(func(l *plog) { l.leader = 1 })
	topics = map[bool][]string{}
	for _, own := range []bool{false, true} {
		f := &fetcher{m: m, key: fetcherKey{1, own}}
		for i := range times {
			req, logs := f.request()
			if !own {
				waits = append(waits, time.Duration(req.MaxWaitTime)*time.Millisecond)
			}
			for l := range logs {
				if i == 0 {
					topics[own] = append(topics[own], fmt.Sprint(l.topic, l.partition))
				}
			}
		}
		slices.Sort(topics[own])
	}
	return topics, waits
}

// SettledAfter waits for the commit of a lane that is there when it begins, and that change then ends.
func SettledAfter(ctx context.Context, how string) error {
	u := unit{"t", 0}
	ln := &lane{unit: u, logs: []*plog{{topic: "t", claimed: true, version: 1, startsAt: -1}}}
	ln.logs[0].ln = ln
	m := &member{place: pubsub.Place{Topic: "t"}, def: &group{}, lanes: map[unit]*lane{u: ln}, dirty: make(chan struct{}, 1), look: make(chan struct{}, 1), news: make(chan struct{})}
	done := make(chan error)
	go func() { done <- m.settled(ctx, func(*lane) bool { return true }) }()
	<-m.dirty // it waits
	m.mu.Lock()
	if how == "vanish" {
		m.vanish(ln)
	} else {
		m.release(ln)
	}
	m.mu.Unlock()
	return <-done
}

// Room is how much a main source and a tier may hand out, of so many messages that all may have in flight together, while these are unsettled and acked;
// and whether what is acked is committed at once where there is none.
func Room(all int, main, tier [2]int) (room [2]int, hurry bool) {
	m := &member{sources: map[pubsub.Place]*source{}, dirty: make(chan struct{}, 1)}
	var list []*source
	for i, held := range [][2]int{main, tier} {
		s := &source{m: m, place: pubsub.Place{Kind: pubsub.PlaceKind(i)}, unsettled: held[0], acked: held[1]}
		s.spec.MaxInFlight, s.spec.AllInFlight = 4, all
		m.sources[s.place] = s
		list = append(list, s)
	}
	for i, s := range list {
		room[i], _ = s.room()
	}
	list[0].fill(nil, 0)
	return room, m.hurry
}
