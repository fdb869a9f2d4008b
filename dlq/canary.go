package dlq

import (
	"errors"
	"fmt"
	"time"
)

// A Canary lets a replay go in three steps: First messages, Next messages, all others. Before each step it waits until those of the one before have an outcome,
// and it looks again every 256 messages of the last step. The zero value has no steps.
//
// It ends the replay when more than MaxFailed per cent of what has an outcome has failed again, an ErrConflict, and when the messages of a step have none
// after Within, an ErrTimeout: nobody handles them, they wait for their retries, or a breaker has opened, which lets its group take nothing. What was sent
// by then stays sent. Running the plan again begins with the first step.
//
// It needs what the group tells of outcomes, so it is an ErrUnsupported where Replay.Topic or another Replay.Broker is named, and with OpenTopic.
type Canary struct {
	First     int           // messages of the first step; 0 = no canary, then the others are 0, too
	Next      int           // of the second; 0 = ten times First
	MaxFailed float64       // per cent; 0 = none may fail
	Within    time.Duration // for the outcomes of a step; 0 = 1 min
	Stop      func() error  // asked before each step and every second while it waits, e.g. whether a breaker of this process has opened: an error ends the replay; nil = nobody is asked
}

const defaultWithin = time.Minute

func (c *Canary) withDefaults() {
	if c.First == 0 {
		return
	}
	if c.Next == 0 {
		c.Next = 10 * c.First
	}
	if c.Within == 0 {
		c.Within = defaultWithin
	}
}

func (c *Canary) check() error {
	switch {
	case c.First < 0 || c.Next < 0 || c.Within < 0:
		return errors.New("Replay.Canary has a negative bound")
	case c.First == 0 && (c.Next != 0 || c.MaxFailed != 0 || c.Within != 0 || c.Stop != nil):
		return errors.New("Replay.Canary has no First")
	case !(c.MaxFailed >= 0 && c.MaxFailed <= 100): // also not a number
		return fmt.Errorf("Replay.Canary.MaxFailed is %v; it is between 0 and 100", c.MaxFailed)
	}
	return nil
}
