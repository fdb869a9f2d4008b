package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/omnibus-go/omnibus/middleware/security"
)

// A rotation gives an owner another key.
type rotation struct {
	files []string // the owner's own, and others
	owner string
	id    string         // of the new key
	suite security.Suite // of the new key; "" = that of the active one
}

func (a *app) keysRotateCommand() *cobra.Command {
	var suite, id, activate string
	var also []string
	var after time.Duration
	c := &cobra.Command{
		Use:   "rotate FILE OWNER",
		Short: "Give an owner a new key, which becomes active when all others have it",
		Long: `rotate makes a new key that is passive: it is accepted wherever it is, and nobody uses it yet. When each process that verifies, or wraps for OWNER, has
looked at its keyring again, rotate --activate makes it active and the one before it passive, so that no message is refused. That is twice the longest time
between two looks: two seconds, where no service says otherwise, after the files are with them all. --after waits so long and does both; it is for services
that read these very files.

So who verifies (or, of a key that wraps, who unwraps) has a new key before anybody uses it, and an old one until nobody has used it for long. Until a process has
looked at its file again it uses the old key, which is accepted all the while.

The old key is to stay passive as long as its messages lie in topics, retries and dead letters. Then retire deletes it.`,
		Example: `  omnibus keys rotate orders.keys orders --also billing.keys
  omnibus keys rotate orders.keys orders --activate orders-2027 --also billing.keys
  omnibus keys rotate orders.keys orders --after 2s --also billing.keys`,
		Args: args(2, 2),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case activate != "" && (id != "" || suite != "" || after != 0):
				return usageOf(c, errors.New("--activate is for a key that is there: it excludes --id, --suite and --after"))
			case after < 0:
				return usageOf(c, errors.New("--after cannot be negative"))
			}
			r := rotation{files: append([]string{args[0]}, also...), owner: args[1], id: cmp.Or(activate, a.keyID(id, args[1])), suite: security.Suite(suite)}
			if activate == "" {
				l, err := r.begin()
				if err != nil {
					return err
				}
				words := []string{"omnibus", "keys", "rotate", args[0], args[1], "--activate", r.id}
				for _, f := range also {
					words = append(words, "--also", f)
				}
				next := commandLine(words...)
				hint := "when every process has it: " + next
				if after > 0 {
					hint = fmt.Sprintf("it becomes active in %v", after)
				}
				if err := a.told(l, hint); err != nil || after == 0 {
					return err
				}
				if err := rest(c.Context(), after); err != nil {
					a.out.warn("the key stays passive; when every process has it: " + next)
					return err
				}
			}
			l, err := r.activate()
			if err != nil {
				return err
			}
			return a.told(l, "")
		},
	}
	f := c.Flags()
	f.StringVar(&suite, "suite", "", "of the new key (default: that of the active one)")
	f.StringVar(&id, "id", "", idUsage)
	f.StringVar(&activate, "activate", "", "make this `KEY` active, which is there, and the one before it passive")
	f.DurationVar(&after, "after", 0, "make the new key active after so long")
	f.StringArrayVar(&also, "also", nil, alsoUsage)
	return c
}

func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// begin makes the new key, which is passive.
func (r *rotation) begin() (l keyLine, err error) {
	var k security.Key
	err = changeKeys(r.files, false, func(f *keyFile, first bool) error {
		if first {
			suite, err := f.suiteOf(r.owner, r.suite)
			if err != nil {
				return err
			}
			if k, err = security.GenerateKey(suite, r.id, r.owner); err != nil {
				return usage(err, "the suites are those of `omnibus keys new --help`")
			}
			k = k.With(security.Passive)
		}
		return f.add(k, first)
	})
	l = lineOf(k)
	l.Files = r.files
	return l, err
}

// suiteOf is the suite of a new key: that of the active ones, unless another of their kind is asked for.
func (f *keyFile) suiteOf(owner string, want security.Suite) (security.Suite, error) {
	var is security.Suite
	for _, k := range f.keys {
		if k.Owner != owner || k.Status != security.Active || want != "" && signs(want) != signs(k.Suite) {
			continue
		}
		if is != "" && is != k.Suite && want == "" {
			return "", usage(fmt.Errorf("%s has active keys of %q of several suites", f.said, owner), "say which by --suite")
		}
		is = k.Suite
	}
	if is == "" {
		return "", usage(fmt.Errorf("%s has no active key of %q that could be followed by another", f.said, owner), "`omnibus keys new` makes the first")
	}
	if want != "" {
		is = want
	}
	return is, nil
}

// activate makes the new key active, and those of its kind that were before it passive.
func (r *rotation) activate() (l keyLine, err error) {
	err = changeKeys(r.files, false, func(f *keyFile, first bool) error {
		k, err := f.find(r.id)
		switch {
		case err != nil:
			return err
		case k.Owner != r.owner:
			return usage(fmt.Errorf("%s: %q is a key of %q", f.said, k.ID, k.Owner), "`omnibus keys list` shows whose each is")
		case k.Status == security.Revoked:
			return usage(fmt.Errorf("%s: %q is revoked", f.said, k.ID), "a revoked key is never used again: rotate makes another")
		case first && signs(k.Suite) && !k.HasPrivate():
			return usage(fmt.Errorf("%s has only the public half of %q, which cannot sign", f.said, k.ID), "name the keyring of its owner first, and others by --also")
		}
		for i := range f.keys {
			if old := &f.keys[i]; old.Owner == r.owner && old.Status == security.Active && old.ID != k.ID && signs(old.Suite) == signs(k.Suite) {
				*old = old.With(security.Passive)
				if first {
					l.Passive = append(l.Passive, old.ID)
				}
			}
		}
		if *k = k.With(security.Active); first {
			was := l.Passive
			l = lineOf(*k)
			l.Files, l.Passive = r.files, was
		}
		return nil
	})
	return l, err
}

func (f *keyFile) remove(id string) {
	f.keys = slices.DeleteFunc(f.keys, func(k security.Key) bool { return k.ID == id })
}
