package rabbitmq

import (
	"net"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const maxCorked = 64 << 10

// A wire is a connection that can hold back what is written: the client flushes each message and each acknowledgement by itself, and a system call for
// each costs more than the rest of it.
type wire struct {
	net.Conn

	mu    sync.Mutex
	corks int
	buf   []byte
}

// Write implements net.Conn.
func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.corks == 0 && len(w.buf) == 0 {
		return w.Conn.Write(b)
	}
	w.buf = append(w.buf, b...)
	if w.corks > 0 && len(w.buf) < maxCorked {
		return len(b), nil
	}
	if err := w.flush(); err != nil {
		return 0, err
	}
	return len(b), nil
}

// SetReadDeadline implements net.Conn. The client lets three heartbeats pass in which it hears nothing, and the server sends one in half the time: two are enough.
func (w *wire) SetReadDeadline(t time.Time) error {
	if !t.IsZero() {
		t = time.Now().Add(time.Until(t) * 2 / 3)
	}
	return w.Conn.SetReadDeadline(t)
}

// flush writes what is held back. mu is held.
func (w *wire) flush() error {
	_, err := w.Conn.Write(w.buf)
	if w.buf = w.buf[:0]; cap(w.buf) > 2*maxCorked {
		w.buf = nil // of one large message
	}
	return err
}

// cork holds back what follows until the last of several uncorks, or until it is much.
func (w *wire) cork() {
	w.mu.Lock()
	w.corks++
	w.mu.Unlock()
}

func (w *wire) uncork() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.corks--; w.corks > 0 || len(w.buf) == 0 {
		return nil
	}
	err := w.flush()
	if err != nil {
		_ = w.Conn.Close() // what the client took for written is not: the reader ends, and with it the connection
	}
	return err
}

// A login is how we say who we are. It adds to what the client says that it can do: to be told when the login is refused, instead of seeing the
// connection close, which a broken network does too.
type login struct {
	mechanism, response string
	properties          amqp.Table
}

// Mechanism implements amqp.Authentication.
func (l *login) Mechanism() string { return l.mechanism }

// Response implements amqp.Authentication. The client has written its capabilities down when it asks for this, and sends them with it.
func (l *login) Response() string {
	if can, ok := l.properties["capabilities"].(amqp.Table); ok {
		can["authentication_failure_close"] = true
	}
	return l.response
}
