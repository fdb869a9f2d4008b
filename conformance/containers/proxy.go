package containers

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/stream"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/rs/zerolog"
)

// Traffic counts bytes.
type Traffic struct {
	Up      int64 // what clients said and the broker got
	Down    int64 // the other way
	Dropped int64 // what vanished between
}

// A proxy stands between clients and a node.
type proxy struct {
	mu       sync.Mutex // one fault at a time
	relay    *toxiproxy.Proxy
	up, down *valve
}

func startProxy(listen, upstream string) (*proxy, error) {
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := &proxy{relay: toxiproxy.NewProxy(server, upstream, listen, upstream)}
	toxics.Register("omnibus_valve", new(valve))
	var err error
	if p.up, err = p.addValve("upstream"); err != nil {
		return nil, err
	}
	if p.down, err = p.addValve("downstream"); err != nil {
		return nil, err
	}
	p.up.links = &links{live: map[*link]struct{}{}}
	p.down.links = p.up.links
	return p, p.relay.Start()
}

func (p *proxy) addValve(direction string) (*valve, error) {
	w, err := p.relay.Toxics.AddToxicJson(strings.NewReader(`{"type":"omnibus_valve","stream":"` + direction + `"}`))
	if err != nil {
		return nil, err
	}
	return w.Toxic.(*valve), nil
}

func (p *proxy) cut() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop()
	return nil
}

// stop ends all connections.
func (p *proxy) stop() {
	p.relay.Stop()
	p.up.links.end()
}

// swallow lets bytes vanish in the directions given, and only there.
func (p *proxy) swallow(up, down bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up.shut.Store(up)
	p.down.shut.Store(down)
	return nil
}

func (p *proxy) latency(d time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up.delay.Store(int64(d))
	p.down.delay.Store(int64(d))
	return nil
}

func (p *proxy) mend() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.up.shut.Load() || p.down.shut.Load() {
		p.stop() // before the valves open: nothing may follow a hole
	}
	for _, v := range []*valve{p.up, p.down} {
		v.shut.Store(false)
		v.delay.Store(0)
	}
	if err := p.relay.Start(); err != nil && err != toxiproxy.ErrProxyAlreadyStarted { //nolint:errorlint // never wrapped
		return err
	}
	return nil
}

func (p *proxy) traffic() Traffic {
	return Traffic{
		Up: p.up.passed.Load(), Down: p.down.passed.Load(),
		Dropped: p.up.dropped.Load() + p.down.dropped.Load(),
	}
}

// A valve is the one toxic of a direction. Faults are its settings: toxics that come and go would have to interrupt those before
// them, which blocks while a client does not read.
type valve struct {
	passed, dropped atomic.Int64 // bytes
	moving          atomic.Int64 // chunks that are past the question whether it is shut; none of them follows once it is shut and this is 0
	shut            atomic.Bool  // bytes vanish
	delay           atomic.Int64 // in nanoseconds
	links           *links       // of both valves
}

// A link is one connection. Toxiproxy leaves a direction blocked for good when its reader has gone. The other direction knows, unless it is blocked as
// well; then it ends with all connections.
type link struct {
	once sync.Once
	over chan struct{}
}

func (l *link) end() { l.once.Do(func() { close(l.over) }) }

// links are the connections that have not ended.
type links struct {
	mu   sync.Mutex
	half *link // its direction upstream has begun
	live map[*link]struct{}
}

// next pairs the directions of a connection: they begin one after the other.
func (ls *links) next() *link {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.half
	if l != nil {
		ls.half = nil
		return l
	}
	l = &link{over: make(chan struct{})}
	ls.half, ls.live[l] = l, struct{}{}
	return l
}

func (ls *links) remove(l *link) {
	l.end()
	ls.mu.Lock()
	defer ls.mu.Unlock()
	delete(ls.live, l)
}

func (ls *links) end() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for l := range ls.live {
		l.end()
	}
}

// NewState pairs the directions of a connection. Toxiproxy calls it for upstream, then for downstream, one connection at a time.
func (v *valve) NewState() any { return v.links.next() }

// GetBufferSize says how many chunks (at most 32 KiB each) may be under way while they are delayed.
func (v *valve) GetBufferSize() int { return 64 }

// Pipe moves the bytes of one direction of one connection.
func (v *valve) Pipe(stub *toxics.ToxicStub) {
	l := stub.State.(*link)
	defer stub.Close()
	defer v.links.remove(l)
	for c := range stub.Input {
		if wait := time.Until(c.Timestamp.Add(time.Duration(v.delay.Load()))); v.delay.Load() > 0 && wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-l.over:
				timer.Stop()
			}
		}
		v.move(stub, l, c)
	}
}

// move hands a chunk on, unless the valve is shut.
func (v *valve) move(stub *toxics.ToxicStub, l *link, c *stream.StreamChunk) {
	v.moving.Add(1) // before it asks: see there
	defer v.moving.Add(-1)
	n := int64(len(c.Data))
	if v.shut.Load() {
		v.dropped.Add(n)
		return
	}
	select {
	case stub.Output <- c:
		v.passed.Add(n)
	case <-l.over:
		v.dropped.Add(n) // nobody reads any more; what is left in Input is drained until its writer has ended
	}
}
