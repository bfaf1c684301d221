package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

var durationType = reflect.TypeFor[time.Duration]()

// field is one key of a struct.
type field struct {
	key   string
	index []int
	tags  tags
}

// fieldsOf lists the keys of a struct, with embedded and inline structs flattened.
func fieldsOf(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		inline := strings.Contains(options, "inline") || f.Anonymous && name == ""
		if name == "-" || !f.IsExported() && !inline {
			continue
		}
		if inline && f.Type.Kind() == reflect.Struct {
			for _, in := range fieldsOf(f.Type) {
				out = append(out, field{in.key, append([]int{i}, in.index...), in.tags})
			}
			continue
		}
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		out = append(out, field{name, []int{i}, tagsOf(f)})
	}
	return out
}

func keysOf(fields []field) []string {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	return keys
}

// isScalar reports whether values of t are written as one scalar.
func isScalar(t reflect.Type) bool {
	if t == durationType || reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return true
	}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return true
	}
	return false
}

// decoder walks a syntax tree and collects what is wrong with it.
type decoder struct {
	file   *File
	faults Faults
}

// decodeFile decodes the root of a file into the settings and sections.
func (f *File) decodeFile(root ast.Node) Faults {
	d := &decoder{file: f}
	entries, ok := d.mapping(root, "")
	if !ok {
		return d.faults
	}
	top := fieldsOf(reflect.TypeFor[Settings]())
	for _, e := range entries {
		if s := f.section(e.key); s != nil {
			d.value(reflect.ValueOf(s.Into).Elem(), e.node, e.key)
			continue
		}
		known := false
		for _, name := range SectionNames {
			if e.key == name { // of another program
				known = true
				d.mapping(e.node, e.key)
			}
		}
		if !known {
			d.field(reflect.ValueOf(&f.Settings).Elem(), top, e, "", SectionNames...)
		}
	}
	return d.faults
}

func (f *File) section(name string) *Section {
	for i := range f.sections[1:] {
		if s := &f.sections[i+1]; s.Name == name {
			return s
		}
	}
	return nil
}

func (d *decoder) where(n ast.Node) string {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return fmt.Sprintf("%s:%d", d.file.Path, t.Position.Line)
	}
	return d.file.Path
}

func (d *decoder) fault(n ast.Node, path, format string, args ...any) {
	d.faults = append(d.faults, Fault{Where: d.where(n), Key: path, Problem: fmt.Sprintf(format, args...)})
}

// entry is one key and its value.
type entry struct {
	key  string
	at   ast.Node
	node ast.Node
}

// mapping lists the entries of a mapping; null is an empty one.
func (d *decoder) mapping(n ast.Node, path string) ([]entry, bool) {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case nil:
		return nil, true
	case *ast.NullNode, *ast.CommentGroupNode:
		return nil, true
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		d.fault(n, path, "%s where keys with values are wanted", kindOf(n))
		return nil, false
	}
	entries := make([]entry, 0, len(values))
	seen := make(map[string]bool, len(values))
	for _, v := range values {
		key, ok := v.Key.(ast.ScalarNode)
		if !ok {
			d.fault(v, path, "a key that is not a plain word")
			continue
		}
		e := entry{key.GetToken().Value, v.Key, v.Value}
		if seen[e.key] {
			d.fault(e.at, join(path, e.key), "the key stands here twice")
			continue
		}
		seen[e.key] = true
		entries = append(entries, e)
	}
	return entries, true
}

// field decodes one entry into the field of its name. more are further keys to propose.
func (d *decoder) field(v reflect.Value, fields []field, e entry, parent string, more ...string) {
	for _, f := range fields {
		if f.key == e.key {
			d.value(v.FieldByIndex(f.index), e.node, join(parent, e.key))
			return
		}
	}
	keys := append(keysOf(fields), more...)
	hint := didYouMean(e.key, keys)
	if hint == "" {
		hint = "; there are: " + strings.Join(keys, ", ")
	}
	d.fault(e.at, join(parent, shorten(e.key, 60)), "there is no such key%s", hint)
}

// value decodes n into v, which holds a default.
func (d *decoder) value(v reflect.Value, n ast.Node, path string) {
	if n == nil {
		return
	}
	if v.Kind() == reflect.Pointer {
		if _, null := n.(*ast.NullNode); null {
			v.SetZero()
			return
		}
		p := reflect.New(v.Type().Elem())
		if !v.IsNil() {
			p.Elem().Set(v.Elem())
		}
		d.value(p.Elem(), n, path)
		v.Set(p)
		return
	}
	d.file.where[path] = d.where(n)
	switch {
	case isScalar(v.Type()):
		text, ok := scalarText(n)
		if !ok {
			hint := ""
			if v.Kind() == reflect.String && strings.HasPrefix(kindOf(n), "keys") {
				hint = `; put text with a colon in quotes`
			}
			d.fault(n, path, "%s where %s is wanted%s", kindOf(n), wanted(v.Type()), hint)
		} else if err := setScalar(v, text); err != nil {
			d.fault(n, path, "%v", err)
		}
	case v.Kind() == reflect.Struct:
		entries, _ := d.mapping(n, path)
		fields := fieldsOf(v.Type())
		for _, e := range entries {
			d.field(v, fields, e, path)
		}
	case v.Kind() == reflect.Slice:
		d.slice(v, n, path)
	case v.Kind() == reflect.Map && v.Type().Key().Kind() == reflect.String:
		entries, ok := d.mapping(n, path)
		if !ok {
			return
		}
		if len(entries) == 0 {
			v.SetZero()
			return
		}
		m := reflect.MakeMapWithSize(v.Type(), len(entries))
		for _, e := range entries {
			item := reflect.New(v.Type().Elem()).Elem()
			d.value(item, e.node, join(path, e.key))
			m.SetMapIndex(reflect.ValueOf(e.key).Convert(v.Type().Key()), item)
		}
		v.Set(m)
	default:
		panic(fmt.Sprintf("config: %s: a field of type %s cannot be configured", path, v.Type()))
	}
}

func (d *decoder) slice(v reflect.Value, n ast.Node, path string) {
	switch n := n.(type) {
	case *ast.NullNode:
		v.SetZero()
	case *ast.SequenceNode:
		if len(n.Values) == 0 {
			v.SetZero()
			return
		}
		out := reflect.MakeSlice(v.Type(), len(n.Values), len(n.Values))
		for i, item := range n.Values {
			d.value(out.Index(i), item, fmt.Sprintf("%s[%d]", path, i))
		}
		v.Set(out)
	default:
		d.fault(n, path, "%s where a list is wanted: write %s", kindOf(n), asList(n))
	}
}

// asList is how a scalar is written as a list.
func asList(n ast.Node) string {
	text, ok := scalarText(n)
	if !ok || text == "" || len(text) > 60 {
		return "[a, b]"
	}
	parts := strings.Split(text, ",")
	for i, p := range parts {
		if parts[i] = strings.TrimSpace(p); strings.ContainsFunc(parts[i], func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._/-", r)
		}) {
			parts[i] = strconv.Quote(parts[i])
		}
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// scalarText returns the text of a scalar other than null.
func scalarText(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// setScalar sets v from text. The error says what is wanted.
func setScalar(v reflect.Value, text string) error {
	fault := fmt.Errorf("%s where %s is wanted", display(text), wanted(v.Type()))
	if v.Type() == durationType {
		d, err := ParseDuration(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(d))
		return nil
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := u.UnmarshalText([]byte(text)); err != nil {
			return fmt.Errorf("%s: %w", display(text), err)
		}
		return nil
	}
	switch {
	case v.Kind() == reflect.String:
		v.SetString(text)
	case v.Kind() == reflect.Bool:
		if text != "true" && text != "false" {
			return fault
		}
		v.SetBool(text == "true")
	case v.CanInt():
		n, err := strconv.ParseInt(text, 0, v.Type().Bits())
		if err != nil {
			return fault
		}
		v.SetInt(n)
	case v.CanUint():
		n, err := strconv.ParseUint(text, 0, v.Type().Bits())
		if err != nil {
			return fault
		}
		v.SetUint(n)
	default:
		n, err := strconv.ParseFloat(text, v.Type().Bits())
		if err != nil || n != n || n-n != 0 { // not a number, or infinite
			return fault
		}
		v.SetFloat(n)
	}
	return nil
}

// setText sets a leaf from an environment variable or flag: a scalar, or the
// elements of a list between commas.
func setText(v reflect.Value, text string) error {
	if v.Kind() != reflect.Slice || isScalar(v.Type()) {
		return setScalar(v, text)
	}
	if strings.TrimSpace(text) == "" {
		v.SetZero()
		return nil
	}
	parts := strings.Split(text, ",")
	out := reflect.MakeSlice(v.Type(), len(parts), len(parts))
	for i, p := range parts {
		if err := setScalar(out.Index(i), strings.TrimSpace(p)); err != nil {
			return err
		}
	}
	v.Set(out)
	return nil
}

// wanted names what a value of t is written as.
func wanted(t reflect.Type) string {
	switch {
	case t == durationType:
		return "a duration such as 10s"
	case t == reflect.TypeFor[Size]():
		return "a size such as 64KiB"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.String || !isScalar(t) || t.Kind() == reflect.Struct || t.Kind() == reflect.Slice:
		return "text"
	case t.Kind() == reflect.Float64 || t.Kind() == reflect.Float32:
		return "a number"
	case t.Kind() == reflect.Uint8 || t.Kind() == reflect.Uint16:
		return fmt.Sprintf("a whole number from 0 to %d", uint64(1)<<t.Bits()-1)
	case strings.HasPrefix(t.Kind().String(), "uint"):
		return "a whole number of 0 or more"
	}
	return "a whole number"
}

// kindOf names what a node is.
func kindOf(n ast.Node) string {
	switch n := n.(type) {
	case *ast.NullNode:
		return "nothing"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "keys with values stand"
	case *ast.SequenceNode:
		return "a list stands"
	case ast.ScalarNode:
		return display(n.GetToken().Value) + " stands"
	}
	return "something else stands"
}
