package memory

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"sync"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Opener opens mem://name. What is opened with the same name through one Opener shares a Server, which lives as long as the Opener;
// an empty name is a fresh one each time. Parameters: max_bytes and max_message, see Config; they count when the name is new.
func Opener() pubsub.Opener {
	var mu sync.Mutex
	servers := map[string]*Server{}
	return pubsub.Opener{
		Schemes: []string{"mem"},
		Check: func(rawURL string) error {
			_, _, err := read(rawURL)
			return err
		},
		Open: func(ctx context.Context, rawURL string, opts *pubsub.Options) (*pubsub.Broker, error) {
			name, cfg, err := read(rawURL)
			if err != nil {
				return nil, err
			}
			mu.Lock()
			s := servers[name]
			if s == nil {
				s = NewServer(cfg)
				if name != "" {
					servers[name] = s
				}
			}
			mu.Unlock()
			b, err := s.Open(ctx, opts)
			if err != nil {
				return nil, err
			}
			return b, nil
		},
	}
}

func read(rawURL string) (name string, cfg Config, err error) {
	if name, cfg, err = parse(rawURL); err != nil {
		err = &pubsub.Error{Op: "open", Broker: "memory", Code: pubsub.ErrInvalid, Err: err, Hint: "mem://name?max_bytes=N&max_message=N"}
	}
	return name, cfg, err
}

func parse(rawURL string) (name string, cfg Config, err error) {
	u, err := url.Parse(rawURL)
	switch {
	case err != nil:
		return "", cfg, errors.New("the URL cannot be parsed") // its error repeats the URL
	case u.Scheme != "mem":
		return "", cfg, errors.New("the scheme is not mem")
	case u.User != nil, u.Port() != "", u.Path != "", u.Fragment != "", u.Opaque != "":
		return "", cfg, errors.New("a mem URL has a name and parameters, no user, port, path or fragment")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return "", cfg, errors.New("the parameters cannot be parsed")
	}
	for key, values := range query {
		n, err := strconv.ParseInt(values[len(values)-1], 10, 64)
		bad := err != nil || n <= 0 || len(values) > 1
		switch key {
		case "max_bytes":
			cfg.MaxBytes = n
		case "max_message":
			cfg.MaxMessage = n
		default:
			return "", cfg, fmt.Errorf("unknown parameter %q", key)
		}
		if bad {
			return "", cfg, fmt.Errorf("parameter %s is to be one positive number of bytes", key)
		}
	}
	return u.Host, cfg, nil
}
