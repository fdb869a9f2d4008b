package config

import (
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/omnibus-go/omnibus/internal/brokerurl"
)

const referenceRemedy = "write ${env:NAME} or ${file:PATH}, with :-OTHER before the } for what to take instead; $${ is a plain ${"

// reference finds ${...}, what is not closed, and $${, which is none. One within another ends at the first }.
func reference() *regexp.Regexp { return regexp.MustCompile(`\$\$\{|\$\{([^}]*)(\}?)`) }

// resolve puts in what a value refers to. What comes from elsewhere is in no error.
func (d *decoder) resolve(raw, path string) (text string, refs, ok bool) {
	ok = true
	var out strings.Builder
	var sources []string
	end := 0
	for _, m := range reference().FindAllStringSubmatchIndex(raw, -1) {
		out.WriteString(raw[end:m[0]])
		if end = m[1]; m[2] < 0 {
			out.WriteString("${")
			continue
		}
		value, source, problem, help := d.lookUp(raw[m[2]:m[3]])
		if m[4] == m[5] {
			problem, help = "a reference has no end", referenceRemedy
		}
		if problem != "" {
			d.wrongf(path, help, "%s", problem)
			ok = false
			continue
		}
		if path == "broker" {
			value, problem = escaped(raw, m[0], m[1], value)
		}
		if problem != "" {
			d.wrongf(path, "a reference is a URL or its beginning, hosts, a user, a password, a part of the path or the value of a parameter", "%s", problem)
			ok = false
			continue
		}
		out.WriteString(value)
		if refs = true; !slices.Contains(sources, source) {
			sources = append(sources, source)
		}
	}
	out.WriteString(raw[end:])
	if refs {
		at := d.origins[path]
		at.Source, at.raw = strings.Join(sources, ", "), raw
		d.origins[path] = at
	}
	return out.String(), refs, ok
}

// lookUp finds one value. It is the same whether a variable is not set or empty: an empty password is a mistake that shows late.
func (d *decoder) lookUp(ref string) (value, source, problem, help string) {
	body, other, hasOther := strings.Cut(ref, ":-")
	kind, name, _ := strings.Cut(body, ":")
	switch {
	case strings.Contains(ref, "${"): // else the inner one would be taken as it is written, and what is missing come as no error
		return "", "", "a reference has another one in it", "put what is to be taken instead there as it is"
	case kind == "env" && regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`).MatchString(name):
		value, _ = d.opts.env(name)
		problem, help = "the environment has no "+name, fmt.Sprintf("set it, or write ${env:%s:-OTHER}", name)
	case kind == "file" && name != "":
		data, err := readAll(inFolder(d.name, name))
		value = brokerurl.Trim(data)
		problem, help = fmt.Sprintf("the file %s is empty", name), fmt.Sprintf("fill it, or write ${file:%s:-OTHER}", name)
		if err != nil {
			problem, help = fmt.Sprintf("the file %s cannot be read: %s", name, reason(err)), "relative paths begin at this file's folder"
			if !os.IsNotExist(err) {
				return "", "", problem, help // what is there and cannot be read is not to be replaced
			}
		}
	default:
		return "", "", "a reference is neither to the environment nor to a file", referenceRemedy
	}
	source = kind + ":" + name
	switch {
	case value != "":
		return value, source, "", ""
	case hasOther:
		return other, "default of " + source, "", ""
	}
	return "", "", problem, help
}

// escaped makes a value fit its place in the broker's URL: in the user, the password, the path and the parameters it is that text, whatever characters it
// has. Hosts, and what the URL begins with, are put in as they are. Schemes and names of parameters cannot be put in: errors show them.
func escaped(raw string, begin, end int, value string) (text, problem string) {
	before := reference().ReplaceAllString(raw[:begin], "x")
	after := reference().ReplaceAllString(raw[end:], "x")
	_, rest, inside := strings.Cut(before, "://")
	query := strings.Index(before, "?")
	if !inside { // the URL begins with a reference, which may have the ?
		query = strings.IndexAny(before, "?&")
	}
	switch {
	case query >= 0 && !strings.Contains(before[max(query, strings.LastIndex(before, "&")):], "="):
		return "", "a parameter's name is a reference"
	case !inside && strings.Contains(after, "://"):
		return "", "the scheme is a reference"
	case !inside && !strings.ContainsAny(before, "?&/"):
		return value, ""
	}
	authority, _, _ := strings.Cut(after, "/")
	authority, _, _ = strings.Cut(authority, "?")
	if inside && !strings.ContainsAny(rest, "/?") && !strings.Contains(authority, "@") {
		return value, "" // a host
	}
	return strings.ReplaceAll(url.QueryEscape(value), "+", "%20"), ""
}
