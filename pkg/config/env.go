package config

import (
	"cmp"
	"fmt"
	"reflect"
	"sort"
	"strings"
)

// EnvPrefix begins the names of all environment variables that are read.
const EnvPrefix = "HTTPCTL_"

// otherEnv are the variables that have a meaning and are not keys of the file.
var otherEnv = map[string]bool{
	EnvPrefix + "AGGREGATOR": true, // where httpctl finds the aggregator
	EnvPrefix + "CONFIG":     true, // the file to read
	EnvPrefix + "CONTEXT":    true, // which of httpctl's contexts is used
}

// leaf is one key that holds a scalar or a list of scalars.
type leaf struct {
	path  string
	value reflect.Value
	tags
}

// env is the variable that sets the key: HTTPCTL_AGENT_CAPTURE_INTERFACES.
func (l leaf) env() string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(l.path, ".", "_"))
}

// leaves lists the leaves of the settings and the registered sections.
func (f *File) leaves() []leaf {
	var out []leaf
	for _, s := range f.sections {
		out = appendLeaves(out, reflect.ValueOf(s.Into).Elem(), s.Name, tags{})
	}
	return out
}

// appendLeaves appends the leaves of v, for which outer holds unless they have tags themselves.
func appendLeaves(out []leaf, v reflect.Value, path string, outer tags) []leaf {
	t := v.Type()
	switch {
	case isScalar(t), t.Kind() == reflect.Slice && isScalar(t.Elem()):
		return append(out, leaf{path, v, outer})
	case t.Kind() == reflect.Struct:
		for _, f := range fieldsOf(t) {
			inner := f.tags
			inner.reload, inner.by = cmp.Or(inner.reload, outer.reload), cmp.Or(inner.by, outer.by)
			out = appendLeaves(out, v.FieldByIndex(f.index), join(path, f.key), inner)
		}
	}
	return out
}

// applyEnv sets keys from the environment, in order of their names.
func (f *File) applyEnv(env []string) Faults {
	byName := map[string]leaf{}
	var names []string
	for _, l := range f.leaves() {
		byName[l.env()] = l
		names = append(names, l.env())
	}
	var faults Faults
	env = append([]string(nil), env...)
	sort.Strings(env)
	for _, variable := range env {
		name, text, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, EnvPrefix) || otherEnv[name] {
			continue
		}
		l, ok := byName[name]
		if !ok {
			if !f.foreign(name) {
				f.Warnings = append(f.Warnings, fmt.Sprintf("environment %s is no setting and was ignored%s", name, didYouMean(name, names)))
			}
			continue
		}
		where := "environment " + name
		if err := setText(l.value, text); err != nil {
			faults = append(faults, Fault{Where: where, Key: l.path, Problem: err.Error()})
		}
		f.where[l.path] = where
	}
	return faults
}

// foreign reports whether a variable belongs to a section of another program,
// or is one of those that Kubernetes makes for a service called httpctl-*.
func (f *File) foreign(name string) bool {
	for _, s := range []string{"_SERVICE_HOST", "_SERVICE_PORT", "_PORT", "_TCP", "_TCP_PORT", "_TCP_ADDR", "_TCP_PROTO"} {
		if strings.HasSuffix(name, s) {
			return true
		}
	}
	if strings.Contains(name, "_SERVICE_PORT_") {
		return true
	}
	for _, s := range SectionNames {
		if f.section(s) == nil && strings.HasPrefix(name, EnvPrefix+strings.ToUpper(s)+"_") {
			return true
		}
	}
	return false
}
