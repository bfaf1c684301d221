package view

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// writeYAML writes v as one YAML document, with the keys, order and values of its JSON. Strings
// are always quoted and their escapes are ours: libraries leave control characters in plain
// scalars, which a terminal would act on, and print "no" or 1e3 as what other readers take for
// something else.
func writeYAML(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	b := bytes.NewBufferString("---")
	if err := yamlValue(b, d, 0, false); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err = w.Write(b.Bytes())
	return err
}

// yamlValue writes the next value of d, after a key or a dash. Lists and objects begin on a line
// of their own, but for an object behind a dash.
func yamlValue(b *bytes.Buffer, d *json.Decoder, depth int, dash bool) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	begin, ok := token.(json.Delim)
	if !ok {
		b.WriteString(" " + yamlScalar(token))
		return nil
	}
	if !d.More() {
		end, err := d.Token()
		fmt.Fprintf(b, " %v%v", begin, end)
		return err
	}
	for first := true; d.More(); first = false {
		if first && dash && begin == '{' {
			b.WriteByte(' ')
		} else {
			b.WriteString("\n" + strings.Repeat("  ", depth))
		}
		if begin == '[' {
			b.WriteString("-")
		} else {
			key, err := d.Token()
			if err != nil {
				return err
			}
			b.WriteString(yamlKey(key.(string)) + ":")
		}
		if err := yamlValue(b, d, depth+1, begin == '['); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

func yamlScalar(token json.Token) string {
	switch v := token.(type) {
	case nil:
		return "null"
	case string:
		return yamlQuote(v)
	case json.Number:
		text := v.String()
		if i := strings.IndexAny(text, "eE"); i >= 0 && !strings.Contains(text, ".") {
			return text[:i] + ".0" + text[i:] // a float of YAML 1.1, too, needs the point
		}
		return text
	default:
		return fmt.Sprint(v) // true, false
	}
}

// yamlKey leaves the names of our own columns plain.
func yamlKey(s string) string {
	plain := strings.IndexFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && r != '_' }) < 0
	switch s {
	case "", "null", "true", "false", "yes", "no", "on", "off", "y", "n":
		plain = false
	}
	if plain {
		return s
	}
	return yamlQuote(s)
}

// yamlQuote writes a double-quoted scalar (YAML 1.2 section 7.3.1).
func yamlQuote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
