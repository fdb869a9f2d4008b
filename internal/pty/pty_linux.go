// Package pty opens pseudo-terminals: tests see what a person at a terminal would. It is for Linux only.
package pty

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// Open returns both ends of a terminal: what is written to tty comes out of master, and what is typed into master can be read from tty. Reading
// from master ends with an error when nobody has tty open any more. The caller closes both.
func Open() (master, tty *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	var n uint32
	var unlock int32
	if err = control(master, syscall.TIOCSPTLCK, unsafe.Pointer(&unlock)); err == nil { //nolint:gosec // ioctl takes the address of a number
		err = control(master, syscall.TIOCGPTN, unsafe.Pointer(&n)) //nolint:gosec // the same
	}
	if err == nil {
		tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		return nil, nil, errors.Join(err, master.Close())
	}
	return master, tty, nil
}

func control(f *os.File, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
