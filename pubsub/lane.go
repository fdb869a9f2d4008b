package pubsub

// A lane is a partition that the feed reads.
type lane struct {
	id      int32
	running int        // items in a handler, or being moved
	losing  *LaneEvent // nil while it is ours
	told    bool       // LaneDone was called
}

func (f *feed) laneOf(id int32) *lane {
	ln := f.lanes[id]
	if ln == nil {
		ln = &lane{id: id}
		f.lanes[id] = ln
	}
	return ln
}

// laneEvent follows the lanes. mu is held, and may be released meanwhile.
func (f *feed) laneEvent(ev LaneEvent) {
	ln := f.lanes[ev.Lane]
	switch ev.Kind {
	case LaneGained:
		f.lanes[ev.Lane] = &lane{id: ev.Lane}
		f.c.log.Debug("lane gained", "lane", ev.Lane)
	case LaneLosing:
		if ln == nil { // it was ours for no message
			ln = &lane{id: ev.Lane}
			f.lanes[ev.Lane] = ln
		}
		ln.losing = &ev
		ln.running++ // so that it is not given up before all copies are on their way
		f.save(f.ctx, ln)
		ln.running--
		f.dropLane(ln, false)
		f.kickSettler()
	case LaneLost:
		if ln != nil {
			f.dropLane(ln, true)
			delete(f.lanes, ev.Lane)
		}
	}
}

// dropLane forgets what is held of a lane, but for what runs: that may still be settled, unless the lane is lost. mu is held.
func (f *feed) dropLane(ln *lane, lost bool) {
	for it := f.oldest; it != nil; {
		after := it.after
		if it.lane == ln {
			switch {
			case it.state != itemRunning && it.state != itemMoving:
				f.c.drop(it)
			case lost:
				f.c.loseRunning(it)
			}
		}
		it = after
	}
	if lost {
		keep := f.settles[:0]
		for _, s := range f.settles {
			if s.Token.Lane != ln.id {
				keep = append(keep, s)
			}
		}
		f.settles = keep
	}
}
