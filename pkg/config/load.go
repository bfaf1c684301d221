package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits on what a configuration file may be, so that a hostile one costs
// little: the parser takes 1.2 s for 250 KB of short keys, and its time grows
// with the square. The samples are below 4 KiB and five levels deep.
const (
	maxFileBytes = 256 << 10
	maxDepth     = 64
)

// SectionNames are the sections that a file may have. A program that does not
// register one of them accepts it unread.
var SectionNames = []string{"agent", "aggregator", "log"}

// Section is a part of the file that a program reads. Into points to a struct
// that holds the defaults; its fields are matched by their yaml tags. If it
// has a method Validate() error, [File.Validate] calls it.
//
// If it has a method Derive(given func(key string) bool) (from string, keys []string), some of
// its values follow from another: Derive computes those that are not given, and returns
// their keys and that of the one they follow from, below the section. It is called after the file and the
// environment were read, and after each [File.Set]. If it also has a method Reason(key string) string, that says
// in a few words why Derive chose a value, for [File.Dump]; "" is because of what it follows from.
type Section struct {
	Name string
	Into any
}

// File is a configuration that was read. It is not safe for concurrent use.
type File struct {
	// Path is where it was read from, "" when there was no file.
	Path string
	// Settings are the top-level settings, Log the section log.
	Settings Settings
	Log      Log
	// Warnings are about things ignored, such as environment variables that
	// begin like ours and name no key.
	Warnings []string

	sections []Section
	where    map[string]string // key path -> where it was set
	derived  map[string]derivation
}

// derivation says what a value follows from, the path of a key, and perhaps why.
type derivation struct{ from, reason string }

// Load reads the file at path, then applies env (as os.Environ returns it).
// An empty path reads no file. Faults of both are returned at once, as
// [Faults]; a file that cannot be read is another error. Values are not
// checked against each other: call [File.Validate] once flags are applied with [File.Set].
func Load(path string, env []string, sections ...Section) (*File, error) {
	if path == "" {
		return Parse("", nil, env, sections...)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data, env, sections...)
}

// Parse is Load with the file's content given; name is for messages.
func Parse(name string, data []byte, env []string, sections ...Section) (*File, error) {
	f := &File{Path: name, Settings: DefaultSettings(), Log: DefaultLog(), where: map[string]string{}}
	f.sections = append([]Section{{"", &f.Settings}, {"log", &f.Log}}, sections...)
	for _, s := range sections {
		if !slices.Contains(SectionNames, s.Name) || s.Name == "log" {
			panic("config: section " + s.Name + " cannot be registered")
		}
		if v := reflect.ValueOf(s.Into); v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
			panic("config: section " + s.Name + " must be a pointer to a struct")
		}
	}
	var faults Faults
	root, err := parseYAML(name, data)
	if err != nil {
		faults = append(faults, *err)
	} else {
		faults = f.decodeFile(root)
	}
	faults = append(faults, f.applyEnv(env)...)
	if len(faults) > 0 {
		return nil, faults
	}
	f.derive()
	return f, nil
}

// derive computes what follows from other values and was not set.
func (f *File) derive() {
	f.derived = map[string]derivation{}
	for _, s := range f.sections {
		d, ok := s.Into.(interface {
			Derive(given func(key string) bool) (from string, keys []string)
		})
		if !ok {
			continue
		}
		reasons, _ := s.Into.(interface{ Reason(key string) string })
		from, keys := d.Derive(func(key string) bool { return f.where[join(s.Name, key)] != "" })
		for _, key := range keys {
			f.derived[join(s.Name, key)] = derivation{from: join(s.Name, from)}
			if reasons != nil {
				f.derived[join(s.Name, key)] = derivation{join(s.Name, from), reasons.Reason(key)}
			}
		}
	}
}

// Set sets one scalar key or list of scalars (separated by commas) from text,
// as environment and flags do. where names the flag for messages, such as "flag --ports".
func (f *File) Set(key, text, where string) error {
	for _, l := range f.leaves() {
		if l.path == key {
			if err := setText(l.value, text); err != nil {
				return Fault{Where: where, Key: key, Problem: err.Error()}
			}
			f.where[key] = where
			f.derive()
			return nil
		}
	}
	var all []string
	for _, l := range f.leaves() {
		all = append(all, l.path)
	}
	return Fault{Where: where, Key: key, Problem: "there is no such key" + didYouMean(key, all)}
}

// Validate checks the settings and every section and returns nil or [Faults]:
// all of them, each with the place that set the value. statistics lists the
// names that the setting statistics may hold; nil leaves them unchecked.
func (f *File) Validate(statistics []string) error {
	faults := under("", f.Settings.Validate(statistics))
	for _, s := range f.sections[1:] {
		if v, ok := s.Into.(interface{ Validate() error }); ok {
			faults = append(faults, under(s.Name, v.Validate())...)
		}
	}
	for i := range faults {
		if faults[i].Where == "" {
			faults[i].Where = f.Where(faults[i].Key)
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return faults
}

// Where says what set a key: "file:line", "environment NAME", what Set was
// told, or "" for a default. For an element of a list it is the list's.
func (f *File) Where(key string) string {
	for key != "" {
		if w := f.where[key]; w != "" {
			return w
		}
		i := strings.LastIndexByte(key, '[')
		if i < 0 || !strings.HasSuffix(key, "]") {
			return ""
		}
		key = key[:i]
	}
	return ""
}

// parseYAML parses one document of bounded size and depth, without anchors,
// aliases and tags. It returns nil for an empty document.
func parseYAML(name string, data []byte) (root ast.Node, fault *Fault) {
	at := func(t *token.Token, format string, args ...any) *Fault {
		where := name
		if t != nil && t.Position != nil {
			where = fmt.Sprintf("%s:%d", name, t.Position.Line)
		}
		return &Fault{Where: where, Problem: fmt.Sprintf(format, args...)}
	}
	if len(data) > maxFileBytes {
		return nil, at(nil, "the file is larger than %s", Size(maxFileBytes))
	}
	if i := invalidUTF8(data); i >= 0 {
		return nil, &Fault{Where: fmt.Sprintf("%s:%d", name, 1+strings.Count(string(data[:i]), "\n")), Problem: "not UTF-8 text"}
	}
	defer func() {
		if p := recover(); p != nil { // the parser's own faults, found by fuzzing its kind
			root, fault = nil, at(nil, "not YAML that can be read: %v", p)
		}
	}()
	tokens := lexer.Tokenize(string(data))
	if t := tooDeep(tokens); t != nil {
		return nil, at(t, "nested deeper than %d levels", maxDepth)
	}
	for _, t := range tokens {
		switch t.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType, token.TagType, token.DirectiveType:
			return nil, at(t, "anchors, aliases, merge keys, tags and directives of YAML are not supported: write the value out")
		}
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		var y yaml.Error
		if errors.As(err, &y) {
			text := y.GetMessage()
			if strings.Contains(text, "'\t' that cannot start any token") {
				text = "a tab at the beginning of the line: YAML is indented with spaces"
			}
			return nil, at(y.GetToken(), "%s", text)
		}
		return nil, at(nil, "%s", err)
	}
	var bodies []ast.Node
	for _, d := range file.Docs {
		if d.Body != nil && d.Body.Type() != ast.CommentType {
			bodies = append(bodies, d.Body)
		}
	}
	switch len(bodies) {
	case 0:
		return nil, nil
	case 1:
		return bodies[0], nil
	}
	return nil, at(bodies[1].GetToken(), "a second document: a configuration is one YAML document")
}

// tooDeep returns the token that nests deeper than maxDepth, or nil. It
// counts open flow collections, and the block collections open at each column.
func tooDeep(tokens token.Tokens) *token.Token {
	flow := 0
	var columns []int // of open block entries
	for _, t := range tokens {
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType, token.MappingValueType:
			if flow > 0 {
				break
			}
			column := t.Position.Column
			if t.Type == token.MappingValueType && t.Prev != nil {
				column = t.Prev.Position.Column // of the key
			}
			for len(columns) > 0 && columns[len(columns)-1] >= column {
				columns = columns[:len(columns)-1]
			}
			columns = append(columns, column)
		}
		if flow+len(columns) > maxDepth {
			return t
		}
	}
	return nil
}

// invalidUTF8 returns the index of the first byte that is not UTF-8, or -1.
func invalidUTF8(data []byte) int {
	if utf8.Valid(data) {
		return -1
	}
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}
