package view

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fill makes random values of a model: strings that can break something, times and numbers that can be absent.
func fill(r *rand.Rand, v reflect.Value) {
	// All are UTF-8: JSON has no other, so that the forms differ where a string is not.
	words := []string{"a", "", "x y", "1,234", "\"quoted\"", "é\x1b[2J", "日本", "<&>", "\u202e", "a\nb", "-", "=1+1", "# x", "null", "| p |"}
	switch v.Interface().(type) {
	case time.Time:
		if r.IntN(4) > 0 {
			v.Set(reflect.ValueOf(noon.Add(time.Duration(r.Int64N(int64(90*24*time.Hour))) - 45*24*time.Hour)))
		}
		return
	case time.Duration:
		v.SetInt(r.Int64() >> r.IntN(63))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(words[r.IntN(len(words))] + words[r.IntN(len(words))])
	case reflect.Bool:
		v.SetBool(r.IntN(2) > 0)
	case reflect.Int64, reflect.Int:
		v.SetInt(r.Int64N(2) * (r.Int64() >> r.IntN(63)))
	case reflect.Uint8:
		v.SetUint(0)
	case reflect.Uint32:
		v.SetUint(uint64(r.Uint32() >> r.IntN(32)))
	case reflect.Uint64:
		v.SetUint(uint64(r.Int64() >> r.IntN(63)))
	case reflect.Float64:
		v.SetFloat(float64(r.Int64()>>r.IntN(63)) / 1000)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(r, v.Field(i))
			}
		}
	case reflect.Slice:
		n := r.IntN(4)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(r, v.Index(i))
		}
	case reflect.Pointer:
		if r.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(r, v.Elem())
		}
	default:
		panic("a " + v.Type().String() + " in the model")
	}
}

func random[T any](r *rand.Rand) *T {
	v := new(T)
	fill(r, reflect.ValueOf(v).Elem())
	return v
}

// TestEveryListIsTheSameInAllForms writes random lists of every command in all forms. CSV and JSON are compared value by value,
// YAML with JSON as a whole, Markdown with the wide table cell by cell, and words and absences across.
func TestEveryListIsTheSameInAllForms(t *testing.T) {
	type list struct {
		rows  string // the key of the rows in JSON
		write func(*bytes.Buffer, Format) error
	}
	s := Style{Now: noon}
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 7))
		alerts, hosts, series, explained := random[Alerts](r), *random[[]Host](r), random[Series](r), random[Explanation](r)
		for i := range hosts {
			hosts[i].Counters = distinct(hosts[i].Counters)
		}
		for i := range series.Points {
			series.Points[i].Loss = distinct(series.Points[i].Loss)
		}
		for i := range explained.Hosts {
			explained.Hosts[i].Loss = distinct(explained.Hosts[i].Loss)
		}
		series.Step = "hour" // whole days are written without a time for people
		dimensions, contexts, tokens, certificates := *random[[]Dimension](r), *random[[]Context](r), *random[[]Token](r), *random[[]Certificate](r)
		for name, l := range map[string]list{
			"alerts":       {"alerts", func(b *bytes.Buffer, f Format) error { return WriteAlerts(b, f, s, alerts) }},
			"hosts":        {"hosts", func(b *bytes.Buffer, f Format) error { return WriteHosts(b, f, s, hosts) }},
			"series":       {"points", func(b *bytes.Buffer, f Format) error { return WriteSeries(b, f, s, series) }},
			"explain":      {"hosts", func(b *bytes.Buffer, f Format) error { return WriteExplanation(b, f, s, explained) }},
			"dimensions":   {"dimensions", func(b *bytes.Buffer, f Format) error { return WriteDimensions(b, f, s, dimensions) }},
			"contexts":     {"contexts", func(b *bytes.Buffer, f Format) error { return WriteContexts(b, f, s, contexts) }},
			"tokens":       {"tokens", func(b *bytes.Buffer, f Format) error { return WriteTokens(b, f, s, tokens) }},
			"certificates": {"certificates", func(b *bytes.Buffer, f Format) error { return WriteCertificates(b, f, s, certificates) }},
		} {
			t.Run(fmt.Sprintf("%s/%d", name, seed), func(t *testing.T) {
				texts := map[Format]string{}
				for _, f := range Formats {
					var b bytes.Buffer
					if err := l.write(&b, Format(f)); err != nil {
						t.Fatalf("%s: %v", f, err)
					}
					texts[Format(f)] = b.String()
				}
				sameAsJSON(t, []byte(texts[FormatYAML]), []byte(texts[FormatJSON]))
				records, err := csv.NewReader(strings.NewReader(texts[FormatCSV])).ReadAll()
				if err != nil {
					t.Fatalf("CSV: %v", err)
				}
				var whole map[string]json.RawMessage
				var objects []map[string]json.RawMessage
				if err := json.Unmarshal([]byte(texts[FormatJSON]), &whole); err != nil {
					t.Fatalf("JSON: %v", err)
				}
				if err := json.Unmarshal(whole[l.rows], &objects); err != nil {
					t.Fatalf("JSON has no rows %s: %v", l.rows, err)
				}
				shown := markdownCells(t, texts[FormatMarkdown])
				if len(objects) == 0 && len(records) == 1 && len(shown) == 0 {
					return
				}
				_, below, ok := strings.Cut(texts[FormatWide], "──\n")
				lines := strings.Split(below, "\n")
				if len(records) != len(objects)+1 || len(shown) != len(objects) || !ok || len(lines) < len(objects) {
					t.Fatalf("%d records of CSV, %d objects of JSON, %d rows of Markdown, %d lines", len(records), len(objects), len(shown), len(lines))
				}
				for i, o := range objects {
					rest := lines[i]
					for k, column := range records[0] {
						raw, there := o[column]
						if !there && (column == "max_duration_seconds" || column == "average_duration_seconds") {
							raw = whole[column] // of all alerts: CSV has no other place for it
						}
						want := "" // absent where it is empty
						if raw != nil {
							want = csvOf(t, raw)
						}
						if got := records[i+1][k]; got != want {
							t.Errorf("row %d, %s: CSV %q, JSON %s", i, column, got, raw)
						}
						if k >= len(shown[i]) {
							continue // of all alerts
						}
						cell := shown[i][k]
						var after bool
						if rest, after = strings.CutPrefix(strings.TrimLeft(rest, " "), cell); !after {
							t.Fatalf("row %d, %s: the wide table has %q, Markdown %q", i, column, lines[i], cell)
						}
						var word any
						_ = json.Unmarshal(raw, &word)
						text, isText := word.(string)
						_, err := time.Parse(time.RFC3339Nano, text)
						switch {
						case raw != nil && word == nil && cell != "-", word == true && cell != "yes", word == false && cell != "no",
							isText && err != nil && cell != strings.TrimSpace(want):
							t.Errorf("row %d, %s: Markdown %q, JSON %s", i, column, cell, raw)
						}
					}
				}
			})
		}
	}
}

// distinct leaves out counters of a name that was there: no answer has two.
func distinct(list []Count) (out []Count) {
	for _, c := range list {
		c.Name = strings.ToValidUTF8(c.Name, "?")
		if !slices.ContainsFunc(out, func(x Count) bool { return x.Name == c.Name }) {
			out = append(out, c)
		}
	}
	return out
}

// csvOf is what CSV has for a value of JSON, by a reading of its own.
func csvOf(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	switch first := strings.TrimSpace(string(raw))[:1]; first {
	case "[":
		var parts []json.RawMessage
		if err := d.Decode(&parts); err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, p := range parts {
			var entry struct {
				Time       *string
				Hits       int64
				Late       int64 `json:"late_hits"`
				Incomplete bool
			}
			if strings.HasPrefix(strings.TrimSpace(string(p)), "{") {
				if err := json.Unmarshal(p, &entry); err != nil {
					t.Fatal(err)
				}
				text := ""
				if entry.Time != nil {
					text = *entry.Time
				}
				text += "=" + strconv.FormatInt(entry.Hits, 10)
				if entry.Late > 0 {
					text += ";late=" + strconv.FormatInt(entry.Late, 10)
				}
				if entry.Incomplete {
					text += ";incomplete"
				}
				out = append(out, text)
				continue
			}
			var text string
			if err := json.Unmarshal(p, &text); err != nil {
				t.Fatal(err)
			}
			out = append(out, text)
		}
		return Clean(strings.Join(out, " "))
	case "{": // counters, in the order in which they stand
		var out []string
		if _, err := d.Token(); err != nil {
			t.Fatal(err)
		}
		for d.More() {
			name, _ := d.Token()
			value, err := d.Token()
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, fmt.Sprintf("%s=%s", Clean(name.(string)), value))
		}
		return strings.Join(out, " ")
	case `"`:
		return Clean(plainJSON(t, raw))
	}
	return plainJSON(t, raw)
}

// TestDocumentedKeysAreWritten: each key of JSON that docs/cli.md names is one that the code writes.
// That it names each that is written is tested beside the commands.
func TestDocumentedKeysAreWritten(t *testing.T) {
	page, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, _ := strings.Cut(string(page), "\n## JSON\n")
	part, _, _ = strings.Cut(part, "\n## The live view\n")
	var source strings.Builder
	for _, pattern := range []string{"*.go", "../stat/*.go", "../exchange/*.go"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			source.Write(text)
		}
	}
	// Of a column's name and its unit, or a quantile and its unit.
	made := strings.Fields("volume_bytes upload_bytes download_bytes ttfb_average_seconds average_seconds p50_seconds p95_seconds p99_seconds max_seconds")
	keys := regexp.MustCompile(`"([a-z][a-z0-9_]*)"`).FindAllStringSubmatch(part, -1)
	if len(keys) < 150 {
		t.Fatalf("%d keys found, want at least 150", len(keys))
	}
	for _, k := range keys {
		if !strings.Contains(source.String(), `"`+k[1]+`"`) && !slices.Contains(made, k[1]) {
			t.Errorf("docs/cli.md names the key %q, which nothing writes", k[1])
		}
	}
}
