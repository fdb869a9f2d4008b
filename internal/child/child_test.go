package child_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/omnibus-go/omnibus/internal/child"
)

type task struct {
	Says  []string
	Fails string
	Stays bool
}

func TestMain(m *testing.M) {
	child.Main("other", func(context.Context, task) error { return errors.New("this is another one") })
	child.Main("worker", func(ctx context.Context, t task) error {
		for _, line := range t.Says {
			fmt.Println(line)
		}
		if t.Fails != "" {
			return errors.New(t.Fails)
		}
		if t.Stays {
			<-ctx.Done()
			fmt.Println("told")
		}
		return nil
	})
	m.Run()
}

// A process does what it is given to do, says so, and ends as it was told to, or otherwise.
func TestProcess(t *testing.T) {
	says := []string{"one", "", "two words"}
	for name, c := range map[string]struct {
		task   task
		end    func(*child.Process)
		says   []string
		killed bool
		fails  bool
	}{
		"ends":   {task{Says: says}, func(*child.Process) {}, says, false, false},
		"fails":  {task{Says: says, Fails: "as it should"}, func(*child.Process) {}, says, false, true},
		"told":   {task{Stays: true}, (*child.Process).Quit, []string{"told"}, false, false},
		"killed": {task{Says: says, Stays: true}, (*child.Process).Kill, says, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := child.Start(t, "", "worker", c.task)
			var got []string
			if len(c.task.Says) == 0 {
				c.end(p)
			}
			for line := range p.Lines {
				if got = append(got, line); len(got) == len(c.task.Says) {
					c.end(p)
				}
			}
			killed, err := p.Wait()
			if !slices.Equal(got, c.says) || killed != c.killed || (err != nil) != c.fails {
				t.Errorf("it says %q, was killed: %v, ends with %v; want %q, %v, failure %v", got, killed, err, c.says, c.killed, c.fails)
			}
			if again, _ := p.Wait(); again != killed {
				t.Error("the second Wait says something else")
			}
		})
	}
}

// What its test has left alone, and not listened to, ends with it.
func TestEndsWithItsTest(t *testing.T) {
	var p *child.Process
	t.Run("forgets it", func(t *testing.T) {
		p = child.Start(t, "", "worker", task{Says: []string{"nobody", "listens"}, Stays: true})
	})
	if killed, err := p.Wait(); !killed {
		t.Errorf("it was not killed: %v", err)
	}
}
