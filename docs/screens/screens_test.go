package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	lines := parse("a\x1b[1;31mb\x1b[mc\x1b[38;5;196md\x1b[0;7me\x1b[48;2;1;2;3mf\x1b[2K日\n\x1b[0mg\n")
	if len(lines) != 2 || len(lines[0]) != 7 {
		t.Fatalf("parse made %+v", lines)
	}
	for i, want := range []cell{
		{"a", 1, style{}}, {"b", 1, style{bold: true, fore: basic[1]}}, {"c", 1, style{}}, {"d", 1, style{fore: "#ff0000"}},
		{"e", 1, style{reversed: true}}, {"f", 1, style{reversed: true, back: "#010203"}}, {"日", 2, style{reversed: true, back: "#010203"}},
	} {
		if lines[0][i] != want {
			t.Errorf("cell %d = %+v, want %+v", i, lines[0][i], want)
		}
	}
	for in, want := range map[string]style{"": {}, "1;;4": {underlined: true}, "38": {}, "38;5": {}, "97;100": {fore: basic[15], back: basic[8]}, "2;22;3;23": {}, "x": {}} {
		if got := (style{}).with(in); got != want {
			t.Errorf("with(%q) = %+v, want %+v", in, got, want)
		}
	}
}

// TestDraw: a film is well-formed, without script, and has each row once, wherever it is shown.
func TestDraw(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for name, text := range map[string]string{"a": "same\n\x1b[31m█▌ <b>&\x1b[0m\nten  apart\n", "b": "same\n\nten  apart"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, path+"=500ms")
	}
	out := filepath.Join(dir, "film.svg")
	if err := run(out, `a "title" <`, 2, files); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var letters strings.Builder
	uses := 0
	for d := xml.NewDecoder(strings.NewReader(string(text))); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		switch x := token.(type) {
		case xml.StartElement:
			if x.Name.Local == "script" || x.Name.Local == "image" {
				t.Errorf("there is a <%s>", x.Name.Local)
			}
			if x.Name.Local == "use" {
				uses++
			}
		case xml.CharData:
			letters.Write(x)
		}
	}
	for _, want := range []string{"same", "<b>&", "ten", "apart", `a "title" <`} {
		if !strings.Contains(letters.String(), want) {
			t.Errorf("it does not show %q:\n%s", want, text)
		}
	}
	if uses != 5 || strings.Count(string(text), ">same<") != 1 || !strings.Contains(string(text), "film 1s steps(1,end) infinite") {
		t.Errorf("%d rows are shown, want 5, and each is there once:\n%s", uses, text)
	}
	if strings.Contains(string(text), "█") {
		t.Error("a block is a letter")
	}
	for _, bad := range [][]string{nil, {filepath.Join(dir, "none")}, {files[0] + "x"}} {
		if err := run(out, "", 0, bad); err == nil {
			t.Errorf("run(%q) = nil", bad)
		}
	}
	if strings.Count(draw("x", []screen{{lines: parse("a"), shown: time.Second}}, 0), "animation") != 0 {
		t.Error("one screen moves")
	}
}

// TestPicturesOfTheReadme: they are made by this program, small enough for a page that is read on a telephone.
func TestPicturesOfTheReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"docs/live.svg", "docs/surge.svg"} {
		text, err := os.ReadFile("../../" + name)
		if err != nil || len(text) > 300_000 {
			t.Errorf("%s: %d bytes, %v; want at most 300,000", name, len(text), err)
		}
		if !strings.Contains(string(readme), "]("+name+")") {
			t.Errorf("README.md does not show %s", name)
		}
		for _, want := range []string{"httpctl dashboard", "NORMAL", "shop.example.org"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s does not show %q", name, want)
			}
		}
	}
}
