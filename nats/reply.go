package nats

import (
	"strconv"
	"strings"
)

// ackInfo is what the reply subject of a message says.
type ackInfo struct {
	deliveries, seq, stored, pending uint64
}

// parseReply reads $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<deliveries>.<seq>.<consumer seq>.<time>.<pending>[.<token>].
func parseReply(reply string) (a ackInfo, ok bool) {
	at := 4
	switch n := strings.Count(reply, "."); {
	case n >= 10:
		at = 6
	case n != 8:
		return a, false
	}
	i := 0
	for part := range strings.SplitSeq(reply, ".") {
		var err error
		switch i - at {
		case 0:
			a.deliveries, err = strconv.ParseUint(part, 10, 64)
		case 1:
			a.seq, err = strconv.ParseUint(part, 10, 64)
		case 3:
			a.stored, err = strconv.ParseUint(part, 10, 64)
		case 4:
			a.pending, err = strconv.ParseUint(part, 10, 64)
		}
		if err != nil {
			return a, false
		}
		i++
	}
	return a, true
}

func (f *flight) size() int64 { return int64(f.msg.Size()) }
