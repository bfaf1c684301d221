package config

import (
	"reflect"
)

// The tags of a field that say what a reload does with its key, besides `yaml`. Both hold for what is below
// a key, too.
const (
	// tagReload says when a value takes effect that was changed while a program runs, in a few words for
	// people. A field without it needs a restart.
	tagReload = "reload"
	// tagBy names the one program that uses a key of the top level, by its section. Without it, all do.
	tagBy = "by"
)

// Key is one key of a configuration, as a reload sees it.
type Key struct {
	Path string
	// Reload says when a changed value takes effect while the program runs; "" is never.
	Reload string
}

// Keys lists the keys that the programs of the registered sections use.
func (f *File) Keys() (keys []Key) {
	for _, l := range f.leaves() {
		if l.by == "" || f.section(l.by) != nil {
			keys = append(keys, Key{l.path, l.reload})
		}
	}
	return keys
}

// Change is a key that has another value than before.
type Change struct {
	Key
	Old, New string // as a file writes them, cut to a line
}

// Keep prepares f, which was read anew, to replace running, the configuration that a program has: keys that need a
// restart keep running's values. It returns what is different, in the order of the keys, those that
// need a restart included. Both must have the same sections. Values that follow from others, or from the machine,
// stay as they are; keys that this program does not use count for nothing.
func (f *File) Keep(running *File) (changes []Change) {
	before := running.leaves()
	for i, l := range f.leaves() {
		old := before[i].value
		if l.by != "" && f.section(l.by) == nil || flowYAML(old) == flowYAML(l.value) {
			continue
		}
		was, followed := running.derived[l.path]
		_, follows := f.derived[l.path]
		if !followed || !follows {
			changes = append(changes, Change{Key{l.path, l.reload}, shorten(flowYAML(old), 80), shorten(flowYAML(l.value), 80)})
			if l.reload != "" {
				continue
			}
		}
		l.value.Set(old)
		f.where[l.path] = "as it runs"
		if delete(f.derived, l.path); followed {
			delete(f.where, l.path)
			f.derived[l.path] = was
		}
	}
	return changes
}

// Section returns what the section of that name was read into: the pointer that was given; nil if there is none.
func (f *File) Section(name string) any {
	if s := f.section(name); s != nil {
		return s.Into
	}
	return nil
}

// tags are what a field says of reloads.
type tags struct{ reload, by string }

func tagsOf(f reflect.StructField) tags { return tags{f.Tag.Get(tagReload), f.Tag.Get(tagBy)} }
