package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/omnibus-go/omnibus/middleware/security"
)

func (a *app) keysCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "keys",
		Short: "Make, list, rotate and retire the keys of keyring files, and verify messages with them",
		Args:  a.noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(completingFiles(a.keysNewCommand()), completingFiles(a.keysListCommand()), completingFiles(a.keysRotateCommand()),
		completingFiles(a.keysRetireCommand()), completingFiles(a.keysVerifyCommand()))
	return c
}

// A keyLine is what is shown of a key: nothing of the key itself.
type keyLine struct {
	ID      string          `json:"id"`
	Suite   security.Suite  `json:"suite"`
	Owner   string          `json:"owner"`
	Status  security.Status `json:"status"` // or "deleted"
	Private bool            `json:"private"`
	Files   []string        `json:"files,omitempty"`   // that were changed
	Passive []string        `json:"passive,omitempty"` // keys that were active before
}

func lineOf(k security.Key) keyLine {
	return keyLine{ID: k.ID, Suite: k.Suite, Owner: k.Owner, Status: k.Status, Private: k.HasPrivate()}
}

// told says what became of a key.
func (a *app) told(l keyLine, hint string) error {
	if a.out.json {
		return a.out.value(l)
	}
	text := fmt.Sprintf("%s (%s) is %s in %s\n", l.ID, l.Suite, l.Status, strings.Join(l.Files, ", "))
	if len(l.Passive) > 0 {
		text += "passive now: " + strings.Join(l.Passive, ", ") + "; retire deletes it when none of its messages is left\n"
	}
	if hint != "" {
		text += hint + "\n"
	}
	return a.out.write(printable(text, true))
}

// keyID is that of a new key: who wants to know how old it is sees it.
func (a *app) keyID(id, owner string) string {
	return cmp.Or(id, owner+"-"+a.now().UTC().Format("20060102T150405Z"))
}

func suites() []string {
	all := []security.Suite{security.Ed25519, security.P256, security.HMACSHA256, security.AES256GCM, security.HPKEX25519, security.HPKEP256}
	names := make([]string, len(all))
	for i, s := range all {
		names[i] = string(s)
	}
	return names
}

const (
	alsoUsage = "another keyring in which the same is done, with the public half alone where there is one; may be repeated"
	idUsage   = "of the new key (default: its owner and the time)"
)

func (a *app) keysNewCommand() *cobra.Command {
	var suite, id string
	var also []string
	var passive bool
	c := &cobra.Command{
		Use:   "new FILE OWNER",
		Short: "Make a key, and the keyring file if there is none",
		Long: `new makes a key that signs for OWNER (ed25519, p256, hmac-sha256), or wraps data keys for it (hpke-x25519, hpke-p256, aes256gcm). The key of a suite that is
symmetric, hmac-sha256 or aes256gcm, is the same for all who have it: each of them can sign. No command shows the private half of a key; the file has it,
which only its owner can read. It is put into its place in one step: services that run may read it at any time.

The first key is active. Where there is one already, rotate makes the next.`,
		Example: "  omnibus keys new new.keys payments\n  omnibus keys new billing.keys ledger --suite hpke-x25519 --also orders.keys",
		Args:    args(2, 2),
		RunE: func(c *cobra.Command, args []string) error {
			k, err := security.GenerateKey(security.Suite(suite), a.keyID(id, args[1]), args[1])
			if err != nil {
				return usageOf(c, err)
			}
			if passive {
				k = k.With(security.Passive)
			}
			files := append([]string{args[0]}, also...)
			if err := changeKeys(files, true, func(f *keyFile, first bool) error { return f.add(k, first) }); err != nil {
				return err
			}
			l := lineOf(k)
			l.Files = files
			return a.told(l, "")
		},
	}
	c.Flags().StringVar(&suite, "suite", string(security.Ed25519), strings.Join(suites(), ", "))
	c.Flags().StringVar(&id, "id", "", idUsage)
	c.Flags().BoolVar(&passive, "passive", false, "it is accepted and not used yet")
	c.Flags().StringArrayVar(&also, "also", nil, alsoUsage)
	return c
}

func (a *app) keysListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list FILE",
		Short:   "List the keys of a keyring file",
		Long:    `list shows which keys there are, whose, and how far each is in its life; nothing of the keys themselves.`,
		Example: "  omnibus keys list orders.keys\n  omnibus keys list billing.keys --json",
		Args:    args(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			keys, err := readKeys(args[0])
			if err != nil {
				return err
			}
			var rows [][]string
			for _, k := range keys {
				l := lineOf(k)
				if a.out.json {
					if err := a.out.value(l); err != nil {
						return err
					}
				}
				half := "public"
				if l.Private {
					half = "private"
				}
				rows = append(rows, []string{printable(l.ID, false), string(l.Suite), printable(l.Owner, false), string(l.Status), half})
			}
			if a.out.json {
				return nil
			}
			return a.out.table([]string{"key", "suite", "owner", "status", "half"}, rows)
		},
	}
}

func (a *app) keysRetireCommand() *cobra.Command {
	var revoke bool
	var also []string
	c := &cobra.Command{
		Use:   "retire FILE KEY",
		Short: "Delete a key that is used no more, or revoke one that others may have",
		Long: `retire deletes a passive or revoked key. What was signed or encrypted with it is refused from then on: retries and dead letters, too. Do it when none of its
messages is left. A key that is active is not deleted: rotate makes another active first.

With --revoke the key stays in the file, and nothing that it has signed is accepted any more, nor decrypted what it has wrapped, from the next look at the file
on. That is for a key that others may have. An owner whose only active key is revoked publishes nothing until it has another: make it with keys new --passive
and rotate --activate, before this where there is time.`,
		Example: "  omnibus keys retire orders.keys orders-2025\n  omnibus keys retire orders.keys orders-2025 --revoke --also billing.keys",
		Args:    args(2, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			var l keyLine
			files := append([]string{args[0]}, also...)
			err := changeKeys(files, false, func(f *keyFile, first bool) error {
				k, err := f.find(args[1])
				if err != nil {
					return err
				}
				if revoke {
					*k = k.With(security.Revoked)
				}
				if first {
					l = lineOf(*k)
				}
				switch {
				case revoke:
				case k.Status == security.Active:
					return usage(fmt.Errorf("%s: %q is active", f.said, k.ID), "`omnibus keys rotate` makes another active; --revoke is for a key that others may have")
				default:
					f.remove(k.ID)
				}
				return nil
			})
			if err != nil {
				return err
			}
			if l.Files = files; !revoke {
				l.Status = "deleted"
			}
			return a.told(l, "")
		},
	}
	c.Flags().BoolVar(&revoke, "revoke", false, "it stays, and is never accepted again")
	c.Flags().StringArrayVar(&also, "also", nil, alsoUsage)
	return c
}
