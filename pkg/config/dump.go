package config

import (
	"bufio"
	"encoding"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Dump writes the effective settings as YAML, each with a comment that says
// what set it, in a form that Load reads back to the same. Sections that no
// one registered are left out.
func (f *File) Dump(w io.Writer) error {
	d := dumper{file: f, w: bufio.NewWriter(w)}
	fmt.Fprintln(d.w, "# Effective settings. The comment names what set a value: the default, a line of")
	fmt.Fprintln(d.w, "# the file, a variable of the environment, or a flag; or why it was chosen.")
	for _, s := range f.sections {
		v := reflect.ValueOf(s.Into).Elem()
		if s.Name == "" {
			d.fields(v, "", 0)
			continue
		}
		fmt.Fprintf(d.w, "\n%s:\n", s.Name)
		d.fields(v, s.Name, 1)
	}
	return d.w.Flush()
}

type dumper struct {
	file *File
	w    *bufio.Writer
}

func (d dumper) fields(v reflect.Value, path string, depth int) {
	for _, f := range fieldsOf(v.Type()) {
		d.entry(f.key, v.FieldByIndex(f.index), join(path, f.key), depth)
	}
}

// entry writes one key and its value.
func (d dumper) entry(key string, v reflect.Value, path string, depth int) {
	indent := strings.Repeat("  ", depth)
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			fmt.Fprintf(d.w, "%s# %s is not set\n", indent, key)
			return
		}
		v = v.Elem()
	}
	where := d.file.Where(path)
	if where == "" {
		where = "default"
		if v := d.file.derived[path]; v.reason != "" {
			where = "chosen: " + v.reason
		} else if d.file.Where(v.from) != "" {
			where = "from " + v.from
		}
	}
	where = strings.Map(func(r rune) rune { // a file's name may hold anything
		if r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 {
			return '?'
		}
		return r
	}, where)
	switch {
	case isScalar(v.Type()):
		fmt.Fprintf(d.w, "%s%s: %s # %s\n", indent, quoteKey(key), scalarYAML(v), where)
	case v.Kind() == reflect.Struct:
		fmt.Fprintf(d.w, "%s%s:\n", indent, quoteKey(key))
		d.fields(v, path, depth+1)
	case v.Kind() == reflect.Map && v.Len() > 0:
		fmt.Fprintf(d.w, "%s%s:\n", indent, quoteKey(key))
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			d.entry(k.String(), v.MapIndex(k), join(path, k.String()), depth+1)
		}
	case v.Kind() == reflect.Map:
		fmt.Fprintf(d.w, "%s%s: {} # %s\n", indent, quoteKey(key), where)
	default:
		fmt.Fprintf(d.w, "%s%s: %s # %s\n", indent, quoteKey(key), flowYAML(v), where)
	}
}

// flowYAML writes any value on one line.
func flowYAML(v reflect.Value) string {
	var parts []string
	switch {
	case v.Kind() == reflect.Pointer:
		if v.IsNil() {
			return "null"
		}
		return flowYAML(v.Elem())
	case isScalar(v.Type()):
		return scalarYAML(v)
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			parts = append(parts, flowYAML(v.Index(i)))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case v.Kind() == reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			parts = append(parts, quoteKey(k.String())+": "+flowYAML(v.MapIndex(k)))
		}
	default:
		for _, f := range fieldsOf(v.Type()) {
			parts = append(parts, f.key+": "+flowYAML(v.FieldByIndex(f.index)))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// scalarYAML writes a scalar so that setScalar reads it back.
func scalarYAML(v reflect.Value) string {
	if v.Type() == durationType {
		return FormatDuration(time.Duration(v.Int()))
	}
	if s, ok := v.Interface().(Size); ok {
		return s.String()
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		if text, err := m.MarshalText(); err == nil {
			return quote(string(text))
		}
	}
	switch {
	case v.Kind() == reflect.String:
		return quote(v.String())
	case v.Kind() == reflect.Float32 || v.Kind() == reflect.Float64:
		return strconv.FormatFloat(v.Float(), 'g', -1, v.Type().Bits())
	}
	return fmt.Sprint(v.Interface())
}

// quoteKey leaves plain words as they are.
func quoteKey(key string) string {
	if key != "" && strings.Trim(key, "abcdefghijklmnopqrstuvwxyz_") == "" {
		return key
	}
	return quote(key)
}

// quote writes s as a JSON string, which YAML reads too.
func quote(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes
	return strings.TrimSuffix(b.String(), "\n")
}
