package security

import (
	"context"
	"time"
)

// A Verified is what a message's signature says, once it was found to be true.
type Verified struct {
	Producer string    // who has signed it
	Key      string    // the ID of the key
	Suite    Suite     // of the key
	Topic    string    // that it was signed for
	Issued   time.Time // when, to the millisecond; the producer's word
	Expires  time.Time // zero = never

	digest [2]uint64 // of what was signed, whatever the key
}

type verifiedKey struct{}

// A verifiedContext is context.WithValue with one allocation for both.
type verifiedContext struct {
	context.Context //nolint:containedctx // this is one
	v               Verified
}

func (c *verifiedContext) Value(key any) any {
	if _, ok := key.(verifiedKey); ok {
		return &c.v
	}
	return c.Context.Value(key)
}

// errNoSign is what layers say that need to know who has signed a message, where none above them has looked. A message is not to blame: what is not signed
// would not have come to them.
const errNoSign = configError("nobody has verified the signature: the layer Sign must be listed before this one")

type configError string

func (e configError) Error() string { return string(e) }

// configPause is how long a subscription rests whose layers cannot work as they are.
const configPause = time.Minute

// From returns what the layer Sign has verified of the message whose handler has this ctx; false = there was no such layer.
func From(ctx context.Context) (Verified, bool) {
	v, ok := ctx.Value(verifiedKey{}).(*Verified)
	if !ok {
		return Verified{}, false
	}
	return *v, true
}
