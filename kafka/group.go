package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	joinRetry    = 50 * time.Millisecond
	unitsEvery   = 10 * time.Second // how often the leader looks for partitions that were added
	patternEvery = time.Second      // and for topics
)

// passes says whether an answer of a coordinator, or its silence, may be another soon.
func passes(err error) bool {
	for _, e := range []error{
		sarama.ErrNotCoordinatorForConsumer, sarama.ErrConsumerCoordinatorNotAvailable, sarama.ErrOffsetsLoadInProgress, sarama.ErrRequestTimedOut,
		sarama.ErrNetworkException,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	if _, ok := errors.AsType[sarama.KError](err); ok {
		return false
	}
	code, final := classify(err)
	return code == pubsub.ErrUnavailable && !final
}

// silent says that the coordinator has not been heard for so long that the group does without us. The first member of a cluster waits for the topic
// of offsets to be made.
func (m *member) silent() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	most := m.d.cfg.SessionTimeout
	if m.generation < 0 {
		most = max(most, answerWithin)
	}
	return time.Since(m.heard) > most
}

func (m *member) hear() {
	m.mu.Lock()
	m.heard = time.Now()
	m.mu.Unlock()
}

// join joins the group, and takes what it is given.
func (m *member) join() error {
	for tries := 0; ; tries++ {
		err := m.joinOnce()
		switch {
		case m.life.Err() != nil:
			return errGone
		case err == nil:
			return nil
		case errors.Is(err, sarama.ErrMemberIdRequired), errors.Is(err, sarama.ErrRebalanceInProgress):
		case errors.Is(err, sarama.ErrUnknownMemberId), errors.Is(err, sarama.ErrIllegalGeneration):
			m.mu.Lock()
			have := len(m.lanes) + len(m.giving)
			m.id, m.generation, m.fenced = "", -1, true
			m.mu.Unlock()
			if have > 0 || tries > 100 {
				return errFenced
			}
			m.mu.Lock()
			m.fenced = false
			m.mu.Unlock()
		case passes(err):
			m.lose()
			if m.silent() {
				return err
			}
			if !pause(m.life, joinRetry) {
				return errGone
			}
		default:
			return err
		}
	}
}

// lose forgets the coordinator: the next request looks for it again.
func (m *member) lose() {
	m.mu.Lock()
	m.coordinator = ""
	m.mu.Unlock()
	if m.slow != nil {
		m.slow.close()
		m.slow = nil
	}
}

// where finds the coordinator.
func (m *member) where(ctx context.Context) (string, error) {
	m.mu.Lock()
	address := m.coordinator
	m.mu.Unlock()
	if address != "" {
		return address, nil
	}
	address, err := m.d.coordinatorOf(ctx, m.group)
	if err == nil {
		m.mu.Lock()
		m.coordinator = address
		m.mu.Unlock()
	}
	return address, err
}

func (d *driver) coordinatorOf(ctx context.Context, group string) (string, error) {
	req := &sarama.FindCoordinatorRequest{Version: 1, CoordinatorKey: group, CoordinatorType: sarama.CoordinatorGroup}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	res, err := anywhere(ctx, d, func(b *sarama.Broker) (*sarama.FindCoordinatorResponse, error) { return b.FindCoordinator(req) })
	if err != nil {
		return "", err
	}
	if res.Err != sarama.ErrNoError {
		return "", res.Err
	}
	return res.Coordinator.Addr(), nil
}

func (m *member) instance() *string {
	if m.d.cfg.Instance == "" {
		return nil
	}
	return &m.d.cfg.Instance
}

const protocol = "omnibus-cooperative"

func (m *member) joinOnce() error {
	address, err := m.where(m.life)
	if err != nil {
		return err
	}
	if m.slow == nil {
		if m.slow, err = m.d.dial(m.life, address, m.d.cfg.SessionTimeout+2*answerWithin); err != nil {
			return err
		}
	}
	m.mu.Lock()
	m.rejoin, m.joining = false, true
	mine := claim{Owned: map[string][]int32{}, Generation: m.generation}
	for u := range m.lanes {
		mine.Owned[u.topic] = append(mine.Owned[u.topic], u.partition)
	}
	for _, ln := range m.giving {
		mine.Owned[ln.unit.topic] = append(mine.Owned[ln.unit.topic], ln.unit.partition)
	}
	session := int32(m.d.cfg.SessionTimeout / time.Millisecond)
	req := sarama.NewJoinGroupRequest(m.d.base.Version)
	req.GroupId, req.SessionTimeout, req.RebalanceTimeout, req.MemberId = m.group, session, session, m.id
	req.GroupInstanceId, req.ProtocolType = m.instance(), "consumer"
	m.mu.Unlock()
	if err := req.AddGroupProtocolMetadata(protocol, &sarama.ConsumerGroupMemberMetadata{Topics: []string{m.place.Topic}, UserData: mine.bytes()}); err != nil {
		return err
	}
	res, err := call(m.life, m.slow, func(b *sarama.Broker) (*sarama.JoinGroupResponse, error) { return b.JoinGroup(req) })
	if err != nil {
		return err
	}
	if res.Err == sarama.ErrMemberIdRequired || res.Err == sarama.ErrNoError {
		m.mu.Lock()
		m.id = res.MemberId
		m.mu.Unlock()
	}
	if res.Err != sarama.ErrNoError {
		return res.Err
	}
	m.hear()
	m.mu.Lock()
	m.generation, m.joining = res.GenerationId, false
	m.mu.Unlock()
	sync := sarama.SyncGroupRequest{GroupId: m.group, GenerationId: res.GenerationId, MemberId: res.MemberId, GroupInstanceId: m.instance(), Version: 4}
	leads := res.LeaderId == res.MemberId
	if leads {
		if err := m.share(res, &sync); err != nil {
			return err
		}
	}
	given, err := call(m.life, m.slow, func(b *sarama.Broker) (*sarama.SyncGroupResponse, error) { return b.SyncGroup(&sync) })
	if err != nil {
		return err
	}
	if given.Err != sarama.ErrNoError {
		return given.Err
	}
	m.hear()
	a, err := given.GetMemberAssignment()
	if err != nil {
		return err
	}
	var units []unit
	if a != nil {
		for topic, parts := range a.Topics {
			for _, p := range parts {
				units = append(units, unit{topic, p})
			}
		}
	}
	s := shareOf(a)
	m.mu.Lock()
	if m.planned = -1; leads || m.instance() != nil { // a member with a name that led and was restarted does not lead, and nobody else does
		m.planned = s.Planned
	}
	m.mu.Unlock()
	return m.apply(units, s.Owed)
}

// share makes the plan, as the leader of the group.
func (m *member) share(res *sarama.JoinGroupResponse, to *sarama.SyncGroupRequest) error {
	list, err := res.GetMembers()
	if err != nil {
		return err
	}
	claims := map[string]claim{}
	for id, meta := range list {
		var c claim
		if len(meta.UserData) > 0 && json.Unmarshal(meta.UserData, &c) != nil {
			c = claim{}
		}
		claims[id] = c
	}
	m.grow()
	classes, err := m.classes(m.life)
	if err != nil {
		return err
	}
	planned := count(classes)
	classes[0] = withhold(classes[0], claims, m.place.Topic, private(kindRetry, m.place))
	given, owed := plan(claims, classes)
	for id, units := range given {
		if err := to.AddGroupAssignmentMember(id, assignment(units, share{planned, owed[id]})); err != nil {
			return err
		}
	}
	return nil
}

// grow gives what is sent to the group alone as many partitions as the topic has, if that was to be made when it was missing. When it cannot, messages
// for the group go to the partitions that there are.
func (m *member) grow() {
	if !m.def.grows || pubsub.IsPattern(m.place.Topic) {
		return
	}
	ctx, cancel := context.WithTimeout(m.life, answerWithin)
	defer cancel()
	retry := private(kindRetry, m.place)
	all, err := m.d.describe(ctx, []string{m.place.Topic, retry})
	if n := all[m.place.Topic].n(); err == nil && all[retry].n() > 0 && all[retry].n() < n {
		if err := m.d.grow(ctx, retry, n); err == nil {
			m.d.forget(retry)
		}
	}
}

// misses says that a topic of the group is not there, as far as one broker knows. After a while that is believed.
func (m *member) misses(topic string) error {
	if m.missing.IsZero() {
		m.missing = time.Now()
	}
	if time.Since(m.missing) < vanishes {
		return &brokerError{pubsub.ErrUnavailable, false, "topic " + topic + " is not there at the moment"}
	}
	return &brokerError{pubsub.ErrNotFound, false, "topic " + topic + " is not there any more"}
}

// classes are the units of the group: the topic's partitions, the tiers', and the quarantine.
func (m *member) classes(ctx context.Context) ([][]unit, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	retry, tiers, quarantine := private(kindRetry, m.place), private(kindTiers, m.place), private(kindQuarantine, m.place)
	pattern := pubsub.IsPattern(m.place.Topic)
	var names []string
	if !m.solo {
		names = append(names, retry, tiers, quarantine)
	}
	var asked []string // nil = all
	if !pattern {
		names = append(names, m.place.Topic)
		asked = names
	}
	all, err := m.d.describe(ctx, asked)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if all[name].n() == 0 {
			return nil, m.misses(name)
		}
	}
	m.missing = time.Time{}
	units := make([][]unit, 3)
	add := func(class int, topic string, from int32) {
		for p := from; p < all[topic].n(); p++ {
			units[class] = append(units[class], unit{topic, p})
		}
	}
	if pattern {
		for topic := range all {
			if pubsub.MatchPattern(m.place.Topic, topic) {
				add(0, topic, 0)
			}
		}
		if !m.solo {
			add(0, retry, 0)
		}
	} else {
		add(0, m.place.Topic, 0)
		if !m.solo { // those beyond the topic's belong to none of its partitions
			add(0, retry, all[m.place.Topic].n())
		}
	}
	if !m.solo {
		add(1, tiers, 0)
		add(2, quarantine, 0)
	}
	return units, nil
}

// beat keeps the membership alive; nil means that it is time to join again.
func (m *member) beat() error {
	every := min(max(m.d.cfg.SessionTimeout/10, 100*time.Millisecond), time.Second)
	looks := unitsEvery
	if pubsub.IsPattern(m.place.Topic) {
		looks = patternEvery
	}
	looked := time.Now()
	timer := time.NewTimer(every)
	defer timer.Stop()
	for {
		select {
		case <-m.life.Done():
			return errGone
		case <-m.look:
			m.mu.Lock()
			again := m.rejoin
			m.mu.Unlock()
			if again {
				return nil
			}
			continue
		case <-timer.C:
		}
		timer.Reset(every)
		m.mu.Lock()
		req := &sarama.HeartbeatRequest{GroupId: m.group, GenerationId: m.generation, MemberId: m.id, GroupInstanceId: m.instance(), Version: 4}
		planned := m.planned
		m.mu.Unlock()
		res, err := ask(m, func(b *sarama.Broker) (*sarama.HeartbeatResponse, error) { return b.Heartbeat(req) })
		if err == nil && res.Err != sarama.ErrNoError {
			err = res.Err
		}
		switch {
		case m.life.Err() != nil:
			return errGone
		case err == nil:
			m.hear()
		case errors.Is(err, sarama.ErrRebalanceInProgress):
			m.hear()
			return nil
		case errors.Is(err, sarama.ErrUnknownMemberId), errors.Is(err, sarama.ErrIllegalGeneration):
			return errFenced
		case passes(err):
			m.lose()
			if m.silent() {
				return err
			}
			timer.Reset(joinRetry)
		default:
			return err
		}
		if planned >= 0 && time.Since(looked) > looks {
			looked = time.Now()
			classes, err := m.classes(m.life)
			if e, ok := errors.AsType[*brokerError](err); ok && e.code == pubsub.ErrNotFound {
				return err
			}
			if err == nil && count(classes) != planned {
				return nil
			}
			if !m.missing.IsZero() { // look again with the next heartbeat
				looked = time.Time{}
			}
		}
	}
}

// ask makes a request that the coordinator answers at once.
func ask[T any](m *member, f func(*sarama.Broker) (T, error)) (v T, err error) {
	address, err := m.where(m.life)
	if err != nil {
		return v, err
	}
	m.asking.Lock()
	c := m.quick
	if c != nil && c.address != address {
		c.close()
		c = nil
	}
	if c == nil {
		c, err = m.d.dial(m.life, address, min(answerWithin, m.d.cfg.SessionTimeout))
		if m.quick = c; err != nil {
			m.quick = nil
		}
	}
	m.asking.Unlock()
	if err != nil {
		m.elsewhere(address)
		return v, err
	}
	if v, err = call(m.life, c, f); err != nil {
		m.elsewhere(address)
		m.asking.Lock()
		if m.quick == c {
			m.quick = nil
		}
		m.asking.Unlock()
		c.close()
	}
	return v, err
}

// elsewhere forgets where the coordinator is, if it is believed to be there.
func (m *member) elsewhere(address string) {
	m.mu.Lock()
	if m.coordinator == address {
		m.coordinator = ""
	}
	m.mu.Unlock()
}
