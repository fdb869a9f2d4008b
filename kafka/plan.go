package kafka

import (
	"cmp"
	"encoding/json"
	"hash/fnv"
	"slices"

	"github.com/IBM/sarama"
)

// A unit is what a group gives to one member: a partition. To a partition of the topic belongs the same one of what is sent to the group alone.
type unit struct {
	topic     string
	partition int32
}

func (u unit) compare(o unit) int {
	return cmp.Or(cmp.Compare(u.topic, o.topic), cmp.Compare(u.partition, o.partition))
}

// A claim is what a member says when it joins: the units that it has, and since which generation of the group. It is the member's user data in the
// protocol of Kafka's own consumers, so that operators' tools can read the rest.
type claim struct {
	Owned      map[string][]int32 `json:"owned,omitempty"`
	Generation int32              `json:"generation"`
}

func (c *claim) bytes() []byte {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // numbers and strings
	}
	return b
}

// plan shares units among members. Members keep what they have as far as all are to have equally many, and what one is to give up is given to
// nobody yet: the member will join again when it has done so. Units of one class are shared for themselves, so that nobody has all tiers but no
// partition of the topic. owed is how many more a member will have then.
func plan(members map[string]claim, classes [][]unit) (result map[string][]unit, owed map[string]int) {
	result, owed = map[string][]unit{}, map[string]int{}
	owner := map[unit]string{}
	since := map[unit]int32{}
	for id, c := range members {
		for topic, parts := range c.Owned {
			for _, p := range parts {
				u := unit{topic, p}
				if old, ok := owner[u]; !ok || c.Generation > since[u] || c.Generation == since[u] && id < old {
					owner[u], since[u] = id, c.Generation
				}
			}
		}
	}
	for i, units := range classes {
		have := map[string][]unit{}
		for _, u := range units {
			if id, ok := owner[u]; ok {
				have[id] = append(have[id], u)
			}
		}
		ids := make([]string, 0, len(members))
		for id := range members {
			ids = append(ids, id)
		}
		slices.SortFunc(ids, func(a, b string) int {
			return cmp.Or(cmp.Compare(len(have[b]), len(have[a])), cmp.Compare(mix(a, i), mix(b, i)), cmp.Compare(a, b))
		})
		var free []unit
		quota := map[string]int{}
		for k, id := range ids {
			quota[id] = len(units) / len(ids)
			if k < len(units)%len(ids) {
				quota[id]++
			}
			slices.SortFunc(have[id], unit.compare)
			keep := min(len(have[id]), quota[id])
			result[id] = append(result[id], have[id][:keep]...)
			quota[id] -= keep
		}
		for _, u := range units {
			if _, ok := owner[u]; !ok {
				free = append(free, u)
			}
		}
		// what is to be given up fills a quota later on
		slices.SortFunc(free, unit.compare)
		for _, id := range ids {
			n := min(quota[id], len(free))
			result[id] = append(result[id], free[:n]...)
			free = free[n:]
			owed[id] += quota[id] - n
		}
	}
	return result, owed
}

// withhold leaves out the partitions of a topic whose part of what is sent to the group alone is still a unit of its own, and somebody's: it was one when
// the topic had fewer partitions. The member gives it up now, and joins again.
func withhold(units []unit, members map[string]claim, topic, retry string) []unit {
	held := map[int32]bool{}
	for _, c := range members {
		for _, p := range c.Owned[retry] {
			held[p] = true
		}
	}
	return slices.DeleteFunc(units, func(u unit) bool { return u.topic == topic && held[u.partition] })
}

func count(classes [][]unit) (n int) {
	for _, units := range classes {
		n += len(units)
	}
	return n
}

func mix(id string, class int) uint32 {
	h := fnv.New32a()
	h.Write([]byte{byte(class)}) // never fails
	h.Write([]byte(id))
	return h.Sum32()
}

// A share is what an assignment says besides its units, as its user data.
type share struct {
	Planned int `json:"planned"`        // units of all members
	Owed    int `json:"owed,omitempty"` // units that are to come to this one, when others have given them up
}

// shareOf reads what an assignment says, -1 units if it does not.
func shareOf(a *sarama.ConsumerGroupMemberAssignment) share {
	s := share{Planned: -1}
	if a == nil || len(a.UserData) == 0 || json.Unmarshal(a.UserData, &s) != nil {
		return share{Planned: -1}
	}
	return s
}

func assignment(units []unit, s share) *sarama.ConsumerGroupMemberAssignment {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // numbers
	}
	a := &sarama.ConsumerGroupMemberAssignment{Topics: map[string][]int32{}, UserData: b}
	for _, u := range units {
		a.Topics[u.topic] = append(a.Topics[u.topic], u.partition)
	}
	return a
}
