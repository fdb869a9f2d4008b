package conformance_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/pubsub"
)

// asked are the properties that need a broker.
func asked() (names []string) {
	for _, p := range conformance.Properties() {
		if p.Pending == "" {
			names = append(names, p.Name)
		}
	}
	return names
}

// afterASecond is a broker of which a property knows after a second, on a virtual clock, that it is not there.
func afterASecond(context.Context) (pubsub.Driver, error) {
	time.Sleep(time.Second)
	return nil, errors.New("nobody there")
}

// What mostly waits runs beside others, what breaks the broker or looks at the whole process runs alone, and the report has its order all the same.
func TestTurns(t *testing.T) {
	alone := []string{
		"Delivery/SurvivesCrash", "Delivery/Replicated", "Lifecycle/NoLeak", "Faults/BrokerRestarts", "Faults/Schedules", "Faults/HalfOpen", "Faults/AbsentAtOpen",
		"Security/CredentialsHidden",
	}
	synctest.Test(t, func(t *testing.T) {
		begin, ended := time.Now(), map[time.Duration][]string{}
		rep, err := conformance.Check(t.Context(), conformance.Harness{Driver: afterASecond}, func(p conformance.PropertyResult) {
			if p.Seconds > 0 {
				at := time.Since(begin)
				ended[at] = append(ended[at], p.Name)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		var most int
		for at, names := range ended {
			most = max(most, len(names))
			for _, name := range alone {
				if slices.Contains(names, name) && len(names) > 1 {
					t.Errorf("together in the second that ends at %v: %q", at, names)
				}
			}
		}
		if most != 5 {
			t.Errorf("%d properties run at once, want 4 that wait and one that works", most)
		}
		if first := ended[time.Duration(len(alone)+1)*time.Second]; !slices.Contains(first, "Faults/CredentialsRevoked") || !slices.Contains(first, "Lifecycle/VanishedTopic") {
			t.Errorf("those that wait longest are not among the first after those that run alone: %q", first)
		}
		if took := time.Since(begin).Seconds(); rep.Seconds != took || int(took) != len(ended) {
			t.Errorf("the report says %v seconds, it took %v, with something in %d of them", rep.Seconds, took, len(ended))
		}
		var got []string
		for _, p := range rep.Properties {
			if p.Seconds > 0 {
				got = append(got, p.Name)
				if p.Seconds != 1 {
					t.Errorf("%s took %v seconds, not its own one", p.Name, p.Seconds)
				}
			}
		}
		if !slices.Equal(got, asked()) {
			t.Errorf("the report is not in the catalogue's order: %q", got)
		}
	})
}

// Each is a subtest of its own name, whatever runs beside it; in a Wrap all run one after another.
func TestTurnsOfSubtests(t *testing.T) {
	t.Setenv("OMNIBUS_REPORTS", t.TempDir())
	for name, c := range map[string]struct {
		wrap    func(conformance.T, func())
		ordered bool
	}{
		"side by side": {nil, false},
		"in a wrap":    {func(_ conformance.T, f func()) { f() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin, f := time.Now(), &fake{T: t, name: "TestIt"}
				f.do(func(f *fake) { conformance.Run(f, conformance.Harness{Driver: afterASecond, Wrap: c.wrap}) })
				took := int(time.Since(begin).Seconds())
				if all := len(asked()); (took == all) != c.ordered || took > all {
					t.Errorf("%d properties of a second each took %d seconds", all, took)
				}
				var got, want []string
				for _, sub := range f.children {
					got = append(got, sub.name)
				}
				for _, p := range conformance.Properties() {
					want = append(want, "TestIt/"+p.Name)
				}
				if !c.ordered {
					slices.Sort(got)
					slices.Sort(want)
				}
				if !slices.Equal(got, want) {
					t.Errorf("the subtests are %q", got)
				}
			})
		})
	}
}
