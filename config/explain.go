package config

import (
	"fmt"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Origin is where a value comes from.
type Origin struct {
	Line   int    // of the file; 0 = a default
	Source string // what it refers to, as in "env:BROKER_URL, file:password"; "" = it is written in the file
	raw    string // as it is written, with its references
}

// A Setting is one key of the effective configuration.
type Setting struct {
	Path    string // as in subscriptions.billing.concurrency
	Value   string // a text that came from elsewhere is shown as its reference; the broker's user, password and parameters as ***
	Default bool   // it is not in the file
	Origin  Origin // where the value comes from

	exact string // the value itself, secret or not; to compare
}

// Explain is the effective configuration: every key that is in effect, defaults included, in the order of File; and where each value comes from. It shows
// no secrets.
func (c *Config) Explain() []Setting {
	x := explainer{origins: c.origins}
	x.object("", reflect.ValueOf(&c.file).Elem())
	return x.all
}

type explainer struct {
	origins map[string]Origin
	all     []Setting
}

func (x *explainer) object(at string, v reflect.Value) {
	for _, f := range fieldsOf(v.Type()) {
		if s, ok := reflect.TypeAssert[Subscription](v); ok {
			f.def = worked(path.Ext(at), f, &s)
		}
		if p, ok := reflect.TypeAssert[Policy](v); ok && len(p.Delays) > 0 && (f.name == "initial" || f.name == "max" || f.name == "factor") {
			continue // delays takes their place
		}
		x.value(join(at, f.name), v.Field(f.index), &f)
	}
}

// worked is a default that follows from other keys.
func worked(ext string, f field, s *Subscription) string {
	held := pubsub.Subscription{MaxInFlight: s.MaxInFlight, Concurrency: s.Concurrency}.InFlight()
	switch f.name {
	case "group":
		return strings.TrimPrefix(ext, ".")
	case "max_in_flight":
		return strconv.Itoa(held)
	case "max_parked":
		return strconv.Itoa(max(held/2, 1))
	}
	return f.def
}

func (x *explainer) value(at string, v reflect.Value, f *field) {
	if layer, ok := reflect.TypeAssert[Layer](v); ok {
		x.layer(join(at, layer.Name), v, layer.Name)
		return
	}
	if ref, ok := reflect.TypeAssert[PolicyRef](v); ok {
		if ref.Inline != nil {
			x.object(at, reflect.ValueOf(ref.Inline).Elem())
			return
		}
		v = reflect.ValueOf(ref.Name)
	}
	_, there := x.origins[at]
	switch v.Kind() {
	case reflect.Pointer:
		if there {
			x.object(at, v.Elem())
		}
		return
	case reflect.Struct:
		x.object(at, v)
		return
	case reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			x.value(join(at, k.String()), v.MapIndex(k), f)
		}
		return
	case reflect.Slice:
		for i := range v.Len() {
			x.value(fmt.Sprintf("%s[%d]", at, i), v.Index(i), f)
		}
		return
	}
	if !there && f.def == "" {
		return
	}
	s := Setting{Path: at, Default: !there, Origin: x.origins[at]}
	if s.Value = strings.TrimPrefix(f.def, "="); there {
		s.exact = written(v, f)
		s.Value = s.exact
		switch {
		case at == "broker":
			s.Value = maskedAs(s.Origin.raw, s.exact)
		case v.Kind() == reflect.String && s.Origin.raw != "":
			s.Value = s.Origin.raw
		}
	}
	x.all = append(x.all, s)
}

// layer explains one: its settings, or its name where it has none.
func (x *explainer) layer(at string, v reflect.Value, name string) {
	fields := fieldsOf(v.Type())
	f := fields[slices.IndexFunc(fields, func(f field) bool { return f.name == name })]
	if one := v.Field(f.index); one.Kind() != reflect.Struct || one.NumField() > 0 {
		x.value(at, one, &f)
		return
	}
	x.all = append(x.all, Setting{Path: at, Value: "on", Origin: x.origins[at], exact: "on"})
}

// written is a value as it could be in a file.
func written(v reflect.Value, f *field) string {
	switch one := v.Interface().(type) {
	case time.Duration:
		if one == pubsub.Forever {
			return "forever"
		}
		text := one.String()
		if strings.HasSuffix(text, "m0s") {
			text = strings.TrimSuffix(text, "0s")
		}
		if strings.HasSuffix(text, "h0m") {
			text = strings.TrimSuffix(text, "0m")
		}
		return text
	case int:
		if one == pubsub.Unlimited && f.also == "unlimited" {
			return f.also
		}
	}
	return fmt.Sprint(v.Interface())
}

// maskedAs is the URL as it is written, masked; where it is one reference as a whole, what that has.
func maskedAs(raw, exact string) string {
	refs := reference().FindAllString(raw, -1)
	if raw == "" || len(refs) == 1 && refs[0] == raw {
		return masked(exact)
	}
	n := -1
	text := masked(reference().ReplaceAllStringFunc(raw, func(string) string { n++; return fmt.Sprintf("\x00%d\x00", n) }))
	for i, ref := range refs {
		text = strings.Replace(text, fmt.Sprintf("\x00%d\x00", i), ref, 1)
	}
	return text
}

// masked is a URL without its user, password and the values of its parameters, each of which may be a secret.
func masked(raw string) string {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return "***"
	}
	rest, query, has := strings.Cut(rest, "?")
	authority, more, slash := strings.Cut(rest, "/")
	if i := strings.LastIndex(authority, "@"); i >= 0 {
		authority = "***" + authority[i:]
	}
	if strings.Contains(more+query, "@") { // of a password with a / or ? in it
		return scheme + "://***"
	}
	if slash {
		authority += "/" + more
	}
	if !has {
		return scheme + "://" + authority
	}
	var parameters []string
	for p := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(p, "=")
		if plain, err := url.QueryUnescape(name); err != nil || !isName(plain) {
			name = "***"
		}
		parameters = append(parameters, name+"=***")
	}
	return scheme + "://" + authority + "?" + strings.Join(parameters, "&")
}

// differences are the paths of the keys that two files do not have in common, sorted.
func differences(a, b *Config) []string {
	of := func(c *Config) map[string]string {
		all := map[string]string{}
		for _, s := range c.Explain() {
			if !s.Default {
				all[s.Path] = s.exact
			}
		}
		for p := range c.origins { // a topic, say, of which only the name is there
			if _, ok := all[p]; !ok {
				all[p] = ""
			}
		}
		return all
	}
	was, is := of(a), of(b)
	var paths []string
	for p, v := range was {
		if w, ok := is[p]; !ok || w != v {
			paths = append(paths, p)
		}
	}
	for p := range is {
		if _, ok := was[p]; !ok {
			paths = append(paths, p)
		}
	}
	for p, digest := range a.plan.policies { // which names the same file, with something else in it
		if other, ok := b.plan.policies[p]; ok && other != digest && !slices.Contains(paths, p) {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return paths
}

// rateLimit finds the settings of a layer by the path that it was made for.
func (c *Config) rateLimit(at string) RateLimit {
	find := func(list string, layers []Layer) (RateLimit, bool) {
		for i := range layers {
			if fmt.Sprintf("%s[%d].%s", list, i, layers[i].Name) == at {
				return layers[i].RateLimit, true
			}
		}
		return RateLimit{}, false
	}
	s, ok := find("middleware", c.file.Middleware)
	for name := range c.file.Subscriptions {
		if !ok {
			s, ok = find("subscriptions."+name+".middleware", c.file.Subscriptions[name].Middleware)
		}
	}
	return s
}
