package view

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
)

// words can break something. All are UTF-8: JSON has no other, so that the forms differ where a string is not.
var words = []string{"a", "", "x y", "1,234", "\"quoted\"", "é\x1b[2J", "日本", "<&>", "\u202e", "a\nb", "-", "=1+1", "# x", "null", "| p |"}

// fill makes random values of a model: strings that can break something, times and numbers that can be absent.
func fill(r *rand.Rand, v reflect.Value) {
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
		if r.IntN(8) == 0 {
			return
		}
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

// TestAnswersAreTheSameInAllForms writes random answers of every command in all forms. YAML is compared with JSON as a whole,
// CSV with JSON value by value, and each cell of Markdown and of the wide table is read back and compared with JSON.
func TestAnswersAreTheSameInAllForms(t *testing.T) {
	for name, make := range answers {
		for seed := range uint64(20) {
			t.Run(fmt.Sprintf("%s/%d", strings.ReplaceAll(name, " ", "-"), seed), func(t *testing.T) {
				a := make(rand.New(rand.NewPCG(seed, 7)))
				texts := map[Format]string{}
				for _, f := range Formats {
					var b bytes.Buffer
					if err := a.write(&b, Format(f)); err != nil {
						t.Fatalf("%s: %v", f, err)
					}
					texts[Format(f)] = b.String()
				}
				for _, f := range []Format{FormatTable, FormatWide, FormatMarkdown, FormatCSV} {
					for line := range strings.Lines(texts[f]) {
						if strings.IndexFunc(line, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) >= 0 {
							t.Errorf("%s has what a terminal acts on: %q", f, line)
						}
					}
				}
				if a.check == nil {
					sameAsJSON(t, []byte(texts[FormatYAML]), []byte(texts[FormatJSON]))
					checkList(t, a.rows, texts)
				} else {
					a.check(t, texts)
				}
			})
		}
	}
}

// fields are the members of an object of JSON.
type fields map[string]json.RawMessage

func fieldsOf(t *testing.T, text []byte) (o fields) {
	t.Helper()
	if err := json.Unmarshal(text, &o); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return o
}

func (o fields) list(t *testing.T, key string) (list []fields) {
	t.Helper()
	if err := json.Unmarshal(o[key], &list); err != nil {
		t.Fatalf("JSON has no list %s: %v", key, err)
	}
	return list
}

func (o fields) texts(t *testing.T, key string) (list []string) {
	t.Helper()
	if err := json.Unmarshal(o[key], &list); err != nil {
		t.Fatalf("JSON has no list %s: %v", key, err)
	}
	return list
}

// checkList compares the forms of one list: CSV, Markdown and the wide table have its rows.
func checkList(t *testing.T, rows string, texts map[Format]string) {
	whole := fieldsOf(t, []byte(texts[FormatJSON]))
	objects := whole.list(t, rows)
	if other := whole["other"]; other != nil && string(other) != "null" {
		objects = append(objects, fieldsOf(t, other))
	}
	records, err := csv.NewReader(strings.NewReader(texts[FormatCSV])).ReadAll()
	if err != nil {
		t.Fatalf("CSV: %v", err)
	}
	if len(records) != len(objects)+1 {
		t.Fatalf("%d records of CSV, %d objects of JSON", len(records), len(objects))
	}
	var shown []string // columns of a table
	for _, column := range records[0] {
		if whole[column] == nil || len(objects) > 0 && objects[0][column] != nil {
			shown = append(shown, column)
		}
	}
	for i, o := range objects {
		if len(o) > len(shown) {
			t.Errorf("row %d: JSON has %d members, CSV %q", i, len(o), shown)
		}
		for k, column := range records[0] {
			raw, there := o[column]
			if !there {
				raw = whole[column] // of all alerts: CSV has no other place for it
			}
			want := "" // absent where it is empty
			if raw != nil {
				want = csvOf(t, raw)
			}
			if got := records[i+1][k]; got != want {
				t.Errorf("row %d, %s: CSV %q, JSON %s", i, column, got, raw)
			}
		}
	}
	if tables := tablesOf(t, texts[FormatMarkdown]); len(tables) != 1 {
		t.Errorf("%d tables of Markdown", len(tables))
	} else {
		_, below, _ := strings.Cut(texts[FormatWide], "──\n")
		checkTable(t, shown, objects, tables[0], strings.Split(below, "\n"))
	}
}

// checkTable reads the cells of a Markdown table, which are those of the wide one, and compares them with JSON. It returns the lines behind the table.
func checkTable(t *testing.T, columns []string, objects []fields, shown [][]string, lines []string) []string {
	t.Helper()
	if len(shown) != len(objects) || len(lines) < len(objects) {
		t.Fatalf("%d rows of Markdown, %d lines, %d objects of JSON", len(shown), len(lines), len(objects))
	}
	for i, o := range objects {
		rest := lines[i]
		if len(shown[i]) != len(columns) {
			t.Fatalf("row %d of Markdown has %d cells, want %q", i, len(shown[i]), columns)
		}
		for k, column := range columns {
			cell := shown[i][k]
			var after bool
			if rest, after = strings.CutPrefix(strings.TrimLeft(rest, " "), cell); !after {
				t.Fatalf("row %d, %s: the wide table has %q, Markdown %q", i, column, lines[i], cell)
			}
			if wrong := disagree(cell, column, o[column]); wrong != "" {
				t.Errorf("row %d, %s: Markdown %q, JSON %s: %s", i, column, cell, o[column], wrong)
			}
		}
		if strings.TrimSpace(rest) != "" {
			t.Errorf("row %d: the wide table has %q behind its cells", i, rest)
		}
	}
	return lines[len(objects):]
}

var (
	clockText  = regexp.MustCompile(`^(\d{4}-)?(\d\d-\d\d )?\d\d:\d\d:\d\d(\.\d{3})?$`)
	lengthPart = regexp.MustCompile(`(\d+(?:\.\d+)?)(ns|µs|ms|s|m|h|d)`)
	sizeText   = regexp.MustCompile(`^([-+]?\d+(?:\.\d+)?) (B|KiB|MiB|GiB|TiB|PiB|EiB)$`)
)

// disagree says what is wrong with a cell for people beside its value in JSON, "" if it says the same: exactly, but for numbers
// that have a unit, which are rounded to three digits.
func disagree(cell, column string, raw json.RawMessage) string {
	near := func(got, want, least float64) string {
		if diff := max(got-want, want-got); diff > max(least, max(want, -want)*.006) {
			return fmt.Sprintf("%v is not near %v", got, want)
		}
		return ""
	}
	var value any
	if len(raw) > 0 {
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		if err := d.Decode(&value); err != nil {
			return err.Error()
		}
	}
	exactly := func(want string) string {
		if cell != want {
			return fmt.Sprintf("want %q", want)
		}
		return ""
	}
	switch v := value.(type) {
	case nil:
		if raw == nil {
			return exactly("")
		}
		return exactly("-")
	case bool:
		return exactly(map[bool]string{true: "yes", false: "no"}[v])
	case string:
		if at, err := time.Parse(time.RFC3339Nano, v); err == nil && clockText.MatchString(cell) {
			if !strings.HasSuffix(at.Format("2006-01-02 15:04:05"), strings.TrimSuffix(cell, at.Format(".000"))) {
				return "another time"
			}
			return ""
		}
		return exactly(strings.TrimSpace(Clean(v)))
	case []any:
		var parts []string
		for i := range v {
			switch x := v[i].(type) {
			case string:
				parts = append(parts, x)
			case map[string]any: // a window of an alert, the newest first
				text := number(int64Of(x["hits"]))
				switch late := int64Of(x["late_hits"]); {
				case late > 0 && x["incomplete"] == true:
					text += " (+" + number(late) + " late, incomplete)"
				case late > 0:
					text += " (+" + number(late) + " late)"
				case x["incomplete"] == true:
					text += " (incomplete)"
				}
				parts = append([]string{text}, parts...)
			}
		}
		if column == "entries" {
			return exactly(strings.Join(parts, "  "))
		}
		return exactly(strings.TrimSpace(Clean(strings.Join(parts, " "))))
	case map[string]any:
		if len(v) == 0 {
			return exactly("nothing")
		}
		var counts []string
		for name, n := range v {
			counts = append(counts, number(int64Of(n))+" "+strings.ReplaceAll(Clean(name), "_", " "))
		}
		slices.SortFunc(counts, func(a, b string) int { return len(b) - len(a) }) // one may be a part of another
		left := cell
		for _, part := range counts {
			if !strings.Contains(left, strings.TrimSpace(part)) {
				return fmt.Sprintf("want %q in it", part)
			}
			left = strings.Replace(left, strings.TrimSpace(part), "", 1)
		}
		if strings.Trim(left, ", ") != "" {
			return fmt.Sprintf("%q is surplus", left)
		}
		return ""
	case json.Number:
		want, err := v.Float64()
		if err != nil {
			return err.Error()
		}
		digits := strings.ReplaceAll(cell, ",", "")
		if whole, ok := strings.CutSuffix(digits, "/s"); ok {
			got, err := strconv.ParseFloat(whole, 64)
			return near(got, want, .51) + errorOf(err)
		}
		if share, ok := strings.CutSuffix(digits, "%"); ok {
			got, err := strconv.ParseFloat(share, 64)
			return near(got, want*100, .051) + errorOf(err)
		}
		if m := sizeText.FindStringSubmatch(cell); m != nil {
			got, err := strconv.ParseFloat(m[1], 64)
			for range slices.Index([]string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}, m[2]) {
				got *= 1024
			}
			return near(got, want, 0) + errorOf(err)
		}
		if parts := lengthPart.FindAllStringSubmatch(cell, -1); parts != nil {
			least, got := 1.0, 0.0
			for _, p := range parts {
				n, err := strconv.ParseFloat(p[1], 64)
				if err != nil {
					return err.Error()
				}
				unit := map[string]float64{"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400}[p[2]]
				got, least = got+n*unit, unit
			}
			if strings.HasPrefix(cell, "-") {
				got = -got
			}
			return near(got, want, least)
		}
		if !strings.HasPrefix(v.String(), "-") {
			digits = strings.TrimPrefix(digits, "+") // a change
		}
		if digits != v.String() {
			return "another number"
		}
		return ""
	}
	return "a value of another kind"
}

func errorOf(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}

func int64Of(v any) int64 {
	n, _ := v.(json.Number)
	i, _ := n.Int64()
	return i
}

// tablesOf returns the cells of the rows of each table of Markdown.
func tablesOf(t *testing.T, text string) (tables [][][]string) {
	t.Helper()
	var block strings.Builder
	for line := range strings.Lines(text + "\n") {
		if strings.HasPrefix(line, "|") {
			block.WriteString(line)
		} else if block.Len() > 0 {
			tables = append(tables, markdownCells(t, block.String()))
			block.Reset()
		}
	}
	return tables
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
