package dlq

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	window     = 256                    // messages on their way to the broker
	pageBytes  = 16 << 20               // of messages that are read ahead; one that is larger comes alone
	lastWords  = 250 * time.Millisecond // for the answers that are due when ctx ends
	longest    = pubsub.Forever / 4     // between two messages
	maxDoubts  = 10                     // answers in a row that nobody has classified, until they are taken for the broker's trouble
	catchingUp = 100 * time.Millisecond // of its rate, how much a replay that fell behind makes up for
)

// A run is one call of Plan.Run. All of it but the answers happens on its goroutine.
type run struct {
	p       *Plan
	unread  map[item]int // what is to be read
	answers chan answer  // has room for all that is on its way: an answer never waits for a run that has ended
	flying  int
	busy    map[string]bool // keys that have a message on its way
	last    time.Time       // when the last message was due, by the rate
	stop    error           // why it ends early
	control *control        // nil where nothing is kept
	sent    int             // handed over in this run
	watch   *watch          // nil without a canary
	mine    func() error    // says whether it is still our turn
	doubts  []answer        // what the broker said no to, nobody knows why, since it last said yes
}

type answer struct {
	item int
	key  string
	err  error
}

// A letter is a dead letter of the plan that was read.
type letter struct {
	item int
	rec  Record
}

// Run sends what of the plan has not been sent. It returns nil once every message is confirmed by the broker, or reported in Report.Failures as one that
// cannot be sent. When ctx ends it returns within a second, an ErrCanceled; within three where it waits for the broker's answer about Replay.Turn.
// An error that is not about one message ends it, too, such as ErrUnavailable or ErrUnconfirmed after the publish deadline: then call Run again.
//
// ErrBroker, which is whatever nobody has classified, is taken for the message's fault where the broker takes others of the plan, and for its own
// after ten in a row, or where it has taken none. The next Run then looks twice as far, so that no number of them holds up for ever what comes behind
// them; ten or more with nothing behind them stay in the plan.
func (p *Plan) Run(ctx context.Context) (Report, error) {
	if err := p.q.begin(p); err != nil {
		return Report{}, err
	}
	defer p.q.end()
	if p.opts.DryRun {
		return p.rehearse(ctx)
	}
	mine, leave, err := p.takeTurn(ctx)
	if err != nil {
		return p.report(), err
	}
	defer leave()
	if err := p.writePlan(); err != nil {
		return p.report(), err
	}
	r := p.newRun(mine)
	if err := r.begin(ctx); err != nil {
		return p.report(), err
	}
	r.sendAll(ctx)
	r.await(ctx)
	r.conclude(ctx)
	r.finish(ctx)
	return p.report(), r.stop
}

func (p *Plan) newRun(mine func() error) *run {
	r := &run{p: p, mine: mine, unread: map[item]int{}, answers: make(chan answer, window+1), busy: map[string]bool{}}
	for i, f := range p.fates {
		if f == open {
			r.unread[p.items[i]] = i
		}
	}
	if p.opts.Canary.First > 0 {
		r.watch = newWatch()
	}
	return r
}

// rehearse looks for what cannot be sent, and sends and writes nothing. The plan stays as it is.
func (p *Plan) rehearse(ctx context.Context) (Report, error) {
	r := p.newRun(nil)
	rep := p.report()
	rep.DryRun = true
	for from := r.first(); len(r.unread) > 0; {
		page, err := r.read(ctx, from)
		if err != nil {
			return rep, err
		}
		if len(page) == 0 {
			if from == (pubsub.Position{}) {
				break
			}
			from = pubsub.Position{}
			continue
		}
		for i := range page {
			l := &page[i]
			if _, err := p.sendable(&l.rec); err != nil {
				rep.Failures = append(rep.Failures, Failure{l.rec.ID, l.rec.Position, err})
			} else {
				rep.Replayed++
			}
		}
		from = page[len(page)-1].rec.Position
	}
	for it := range r.unread {
		rep.Failures = append(rep.Failures, Failure{it.ID, it.At, p.goneError()})
	}
	rep.Failed = len(rep.Failures)
	return rep, nil
}

// sendable says where a dead letter would go, or why it cannot be sent.
func (p *Plan) sendable(rec *Record) (to pubsub.Place, err error) {
	if rec.undecodable {
		return to, p.q.fail("replay", pubsub.ErrInvalid, rec.Bad, "it cannot be decoded")
	}
	to, ok := p.target(rec)
	if !ok {
		return to, p.q.fail("replay", pubsub.ErrInvalid, errors.New("the dead letter does not say in which topic and group it failed"), "name Replay.Topic")
	}
	return to, nil
}

func (p *Plan) goneError() error {
	return p.q.fail("replay", pubsub.ErrNotFound, errors.New("the dead letter is not there any more"), "")
}

// conclude decides about doubts that no answer came behind.
func (r *run) conclude(ctx context.Context) {
	switch {
	case r.stop != nil || len(r.doubts) == 0:
	case r.p.replayed > 0 && len(r.doubts) < maxDoubts:
		doubts := r.doubts
		r.doubts = nil
		r.record(ctx, nil, doubts)
	default:
		r.endBy(r.doubts[0].err)
	}
}

// sendAll reads page by page: a browse that waits for a slow replay would outlive what a broker keeps for it.
func (r *run) sendAll(ctx context.Context) {
	from := r.first()
	for len(r.unread) > 0 && r.stop == nil {
		page, err := r.read(ctx, from)
		if err != nil {
			r.end(err)
			return
		}
		if len(page) == 0 {
			if from == (pubsub.Position{}) {
				r.gone(ctx)
				return
			}
			from = pubsub.Position{} // look everywhere before saying that something is gone
			continue
		}
		for i := range page {
			r.send(ctx, &page[i])
			if r.stop != nil {
				return
			}
		}
		from = page[len(page)-1].rec.Position
	}
}

// first is where the first item of the plan that is to be read lies, zero if nobody knows.
func (r *run) first() pubsub.Position {
	for i, f := range r.p.fates {
		if f == open {
			return r.p.items[i].At
		}
	}
	return pubsub.Position{}
}

// read takes the next letters out of unread.
func (r *run) read(ctx context.Context, from pubsub.Position) (page []letter, err error) {
	numbers := numbering{}
	var bytes int64
	for rec, err := range r.p.q.browse(ctx, from) {
		if err != nil {
			return nil, err
		}
		it := numbers.item(&rec)
		i, wanted := r.unread[it]
		if !wanted {
			continue
		}
		delete(r.unread, it)
		page = append(page, letter{i, rec})
		if bytes += rec.Stored.Size(); len(page) == window || bytes >= pageBytes || len(r.unread) == 0 {
			break
		}
	}
	return page, nil
}

// gone reports what is in the plan and not there any more.
func (r *run) gone(ctx context.Context) {
	var fs []answer
	for i, f := range r.p.fates {
		if _, missing := r.unread[r.p.items[i]]; missing && f == open {
			fs = append(fs, answer{item: i, err: r.p.goneError()})
		}
	}
	r.settle(ctx, fs)
}

// send hands one message over, when the one before it of its key has its answer, there is room, and the rate allows it.
func (r *run) send(ctx context.Context, l *letter) {
	p, key := r.p, l.rec.Message.Key
	to, err := p.sendable(&l.rec)
	if err != nil {
		r.settle(ctx, []answer{{item: l.item, err: err}})
		return
	}
	r.gate(ctx)
	r.pace(ctx)
	if err := r.mine(); err != nil {
		r.end(err)
	}
	for r.stop == nil && (r.flying == window || key != "" && r.busy[key]) {
		select {
		case a := <-r.answers:
			r.take(ctx, a)
		case <-ctx.Done():
			r.cancel(ctx)
		}
	}
	if r.stop != nil {
		return
	}
	r.flying++
	r.sent++
	if r.watch != nil {
		r.watch.sent[l.rec.ID] = l.rec.Message.ID
	}
	if key != "" {
		r.busy[key] = true
	}
	i := l.item
	p.opts.Broker.Resend(ctx, to, restored(&l.rec, to), p.token(p.items[i], to), func(_ pubsub.Receipt, err error) {
		r.answers <- answer{i, key, err}
	})
	select { // so that what is confirmed is told soon
	case a := <-r.answers:
		r.take(ctx, a)
	default:
	}
}

// pace waits until the next message is due, and sees to the answers meanwhile.
func (r *run) pace(ctx context.Context) {
	for r.stop == nil {
		if r.poll(ctx); r.stop != nil {
			return
		}
		rate, changed := r.p.currentRate()
		now := time.Now()
		due := now
		if rate > 0 && !r.last.IsZero() {
			due = r.last.Add(time.Duration(min(float64(time.Second)/rate, float64(longest))))
		}
		wait := due.Sub(now)
		if wait <= 0 {
			r.last = due
			if -wait > catchingUp {
				r.last = now.Add(-catchingUp)
			}
			if ctx.Err() != nil {
				r.cancel(ctx)
			}
			return
		}
		timer := time.NewTimer(min(wait, pollEvery))
		select {
		case <-timer.C:
		case <-changed:
		case a := <-r.answers:
			r.take(ctx, a)
		case <-ctx.Done():
			r.cancel(ctx)
		}
		timer.Stop()
	}
}

// take sees to an answer and those that came with it.
func (r *run) take(ctx context.Context, a answer) {
	as := []answer{a}
	for more := true; more; {
		select {
		case b := <-r.answers:
			as = append(as, b)
		default:
			more = false
		}
	}
	as = slices.DeleteFunc(as, func(a answer) bool {
		if a.item == told {
			r.heard(ctx, a.err)
			return true
		}
		r.flying--
		delete(r.busy, a.key)
		return false
	})
	r.settle(ctx, as)
}

// settle takes answers, and tells the journal and whoever looks on of the fates. A message whose error is not its own stays open.
func (r *run) settle(ctx context.Context, as []answer) {
	var done, failed []answer
	for _, a := range as {
		switch {
		case a.err == nil:
			done = append(done, a)
			failed = append(failed, r.doubts...) // the broker is well, so it was the messages
			r.doubts, r.p.patience = nil, maxDoubts
		case ofMessage(a.err):
			failed = append(failed, a)
		case pubsub.CodeOf(a.err) == pubsub.ErrBroker:
			r.doubts = append(r.doubts, a)
			if r.stop == nil && len(r.doubts) >= r.p.patience {
				r.p.patience *= 2
				r.endBy(a.err)
			}
		default:
			r.endBy(a.err)
		}
	}
	r.record(ctx, done, failed)
}

// record gives messages their fates.
func (r *run) record(ctx context.Context, done, failed []answer) {
	if len(done)+len(failed) == 0 {
		return
	}
	p := r.p
	var f journalFates
	for _, a := range done {
		f.Done = append(f.Done, a.item)
		p.settle(a.item, nil)
	}
	for _, a := range failed {
		f.Failed = append(f.Failed, journalFailed{a.item, uint8(pubsub.CodeOf(a.err)), a.err.Error()})
		p.settle(a.item, a.err)
		if r.watch != nil {
			delete(r.watch.sent, p.items[a.item].ID)
		}
	}
	if err := p.write(f); err != nil { // first: it is what nobody else can know
		r.end(err)
	}
	r.tell(ctx, f.Done)
	if p.opts.Progress != nil {
		p.opts.Progress(p.replayed+len(p.failures), p.Count)
	}
}

// await takes the answers that are still due; once ctx has ended only those that come soon.
func (r *run) await(ctx context.Context) {
	done := ctx.Done()
	var late <-chan time.Time
	for r.flying > 0 || r.talking() {
		if done != nil && ctx.Err() != nil {
			done = nil
			timer := time.NewTimer(lastWords)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case a := <-r.answers:
			r.take(ctx, a)
		case <-done:
		case <-late:
			r.cancel(ctx)
			return
		}
	}
}

func (r *run) cancel(ctx context.Context) {
	r.end(r.p.q.fail("replay", pubsub.ErrCanceled, context.Cause(ctx), "nothing is lost: run the plan again"))
}

// endBy lets the run end because of an answer that is not about its message.
func (r *run) endBy(err error) {
	r.end(r.p.q.fail("replay", pubsub.CodeOf(err), err, "nothing is lost: run the plan again"))
}

// end lets the run end for the first reason that there is.
func (r *run) end(err error) {
	if r.stop == nil {
		r.stop = err
	}
}
