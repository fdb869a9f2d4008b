package containers

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// freePorts returns n ports of 127.0.0.1 that nobody uses. They lie below the range from which systems take ports for outgoing
// connections, so that nothing takes one while its broker is dead or its proxy cut.
func freePorts(ctx context.Context, n int) ([]int, error) {
	const low, high = 20000, 32000
	var ports []int
	for range 1000 {
		if len(ports) == n {
			return ports, nil
		}
		port := low + rand.IntN(high-low)
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", local(port))
		if err != nil {
			continue
		}
		defer func() { _ = l.Close() }() // open until all are found, so that none is found twice
		ports = append(ports, port)
	}
	return nil, errors.New("no free port on 127.0.0.1 between 20000 and 32000")
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
