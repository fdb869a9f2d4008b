package wycheproof_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"slices"
	"testing"

	vectors "github.com/c2sp/wycheproof"

	"github.com/omnibus-go/omnibus/middleware/security/internal/primitive"
)

// A binary is bytes in hexadecimal.
type binary []byte

func (b *binary) UnmarshalText(text []byte) (err error) {
	*b, err = hex.AppendDecode(nil, text)
	return err
}

// A vector has the members of all kinds of vectors that are asked here.
type vector struct {
	ID     int    `json:"tcId"`
	Text   string `json:"comment"`
	Result string `json:"result"`

	Msg, Sig, Key, IV, AAD, CT, Tag binary
	IKM, Salt, Info, OKM            binary
	Size                            int
}

type group struct {
	PublicKey struct {
		PK           binary `json:"pk"`
		Uncompressed binary `json:"uncompressed"`
	} `json:"publicKey"`
	IVSize, KeySize, TagSize int // in bits
	Tests                    []vector
}

// each asks about the vectors of a file, of those groups that can be asked about, and asserts that accepts says of each what is said there. No fewer than least
// must be there that are valid, and that are not.
func each(t *testing.T, file string, asked func(g *group) bool, accepts func(g *group, v *vector) bool, leastValid, leastInvalid int) {
	t.Helper()
	text, err := fs.ReadFile(vectors.TestVectors, file)
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		NumberOfTests int
		TestGroups    []group
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	valid, invalid, seen := 0, 0, 0
	for i := range all.TestGroups {
		g := &all.TestGroups[i]
		seen += len(g.Tests)
		if !asked(g) {
			continue
		}
		for j := range g.Tests {
			v := &g.Tests[j]
			want := v.Result == "valid"
			if !slices.Contains([]string{"valid", "invalid"}, v.Result) {
				t.Errorf("vector %d (%s) is %q: that says nothing", v.ID, v.Text, v.Result)
			}
			if want {
				valid++
			} else {
				invalid++
			}
			if got := accepts(g, v); got != want {
				t.Errorf("vector %d (%s) is %s, and accepted: %v", v.ID, v.Text, v.Result, got)
			}
		}
	}
	if seen != all.NumberOfTests || valid < leastValid || invalid < leastInvalid {
		t.Errorf("%d vectors of %d were read; %d valid and %d invalid ones were asked, want at least %d and %d", seen, all.NumberOfTests, valid, invalid, leastValid, leastInvalid)
	}
	t.Logf("%d valid and %d invalid", valid, invalid)
}

func everyGroup(*group) bool { return true }

func TestEd25519(t *testing.T) {
	each(t, "ed25519_test.json", everyGroup, func(g *group, v *vector) bool {
		k, err := primitive.NewEd25519(nil, g.PublicKey.PK)
		if err != nil {
			t.Fatal(err)
		}
		return k.Verify(v.Msg, v.Sig)
	}, 80, 60)
}

func TestP256(t *testing.T) {
	each(t, "ecdsa_secp256r1_sha256_test.json", everyGroup, func(g *group, v *vector) bool {
		k, err := primitive.NewP256(nil, g.PublicKey.Uncompressed)
		if err != nil {
			t.Fatal(err)
		}
		return k.Verify(v.Msg, v.Sig)
	}, 160, 200)
}

// Keys of less than 32 bytes are refused, and so are tags that are cut.
func TestHMAC(t *testing.T) {
	for _, shortened := range []bool{false, true} {
		each(t, "hmac_sha256_test.json", func(g *group) bool { return g.KeySize >= 256 && (g.TagSize < 256) == shortened }, func(_ *group, v *vector) bool {
			k, err := primitive.NewHMAC(v.Key)
			if err != nil {
				t.Fatal(err)
			}
			if got := k.Verify(v.Msg, v.Tag); !shortened || got {
				return got
			}
			full, err := k.Sign(v.Msg)
			if err != nil {
				t.Fatal(err)
			}
			return bytes.HasPrefix(full, v.Tag)
		}, 20, 20)
	}
	each(t, "hmac_sha256_test.json", func(g *group) bool { return g.KeySize < 256 }, func(_ *group, v *vector) bool {
		if _, err := primitive.NewHMAC(v.Key); err == nil {
			t.Errorf("a key of %d bytes is taken", len(v.Key))
		}
		return v.Result == "valid"
	}, 1, 0)
}

func TestAESGCM(t *testing.T) {
	ours := func(g *group) bool { return g.KeySize == 256 && g.IVSize == 96 && g.TagSize == 128 }
	each(t, "aes_gcm_test.json", ours, func(_ *group, v *vector) bool {
		c, err := primitive.NewCipher(v.Key)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := c.Open(slices.Concat(v.IV, v.CT, v.Tag), v.AAD)
		return err == nil && bytes.Equal(plain, v.Msg)
	}, 30, 20)
	each(t, "aes_gcm_test.json", func(g *group) bool { return g.KeySize != 256 }, func(_ *group, v *vector) bool {
		if _, err := primitive.NewCipher(v.Key); err == nil {
			t.Errorf("a key of %d bytes is taken", len(v.Key))
		}
		return v.Result == "valid"
	}, 1, 0)
}

func TestHKDF(t *testing.T) {
	each(t, "hkdf_sha256_test.json", everyGroup, func(_ *group, v *vector) bool {
		prk, err := primitive.Extract(v.IKM, v.Salt)
		if err != nil {
			t.Fatal(err)
		}
		okm, err := primitive.Expand(prk, string(v.Info), v.Size)
		return err == nil && bytes.Equal(okm, v.OKM)
	}, 70, 3)
}
