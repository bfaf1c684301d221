package test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadmeExamples runs each block of README.md that is marked `sh run`, and
// wants the output that the block after it shows. There, a line of three dots
// stands for lines left out. TestDocsCommandLines checks the other blocks.
func TestReadmeExamples(t *testing.T) {
	dir := filepath.Dir(program(t, "httpctl"))
	blocks := regexp.MustCompile("(?ms)^```sh run\n(.*?)^```\n\n```text\n(.*?)^```$").FindAllStringSubmatch(page(t, "README.md"), -1)
	if n := strings.Count(page(t, "README.md"), "```sh run"); n < 3 || n != len(blocks) {
		t.Fatalf("README.md has %d examples, %d with an output; want at least 3, all with one", n, len(blocks))
	}
	for _, b := range blocks {
		script, want := b[1], b[2]
		t.Run(strings.Join(strings.Fields(script)[:3], " "), func(t *testing.T) {
			if _, err := exec.LookPath("jq"); err != nil && strings.Contains(script, "jq ") {
				t.Skip("needs jq, which is not installed")
			}
			cmd := exec.Command("bash", "-e", "-c", script)
			cmd.Dir = ".."
			cmd.Env = append(os.Environ(), "PATH="+dir+string(filepath.ListSeparator)+os.Getenv("PATH"), "TZ=UTC", "LANG=C.UTF-8", "NO_COLOR=1")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil || stderr.Len() > 0 {
				t.Fatalf("%s: %v\n%s", script, err, stderr.Bytes())
			}
			rest := string(out)
			for i, part := range regexp.MustCompile(`(?m)^\.\.\.\n`).Split(want, -1) {
				before, after, ok := strings.Cut(rest, part)
				if !ok || i == 0 && before != "" {
					t.Fatalf("%s printed\n%s\nwhich does not have, in its place,\n%s", script, out, part)
				}
				rest = after
			}
			if !strings.HasSuffix(want, "...\n") && rest != "" {
				t.Errorf("%s also printed\n%s", script, rest)
			}
		})
	}
}
