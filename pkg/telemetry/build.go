package telemetry

import (
	"fmt"
	"runtime/debug"
	"strings"
)

// Build is what a program knows of how it was built. What it does not know is
// empty: a program that `go test` or `go run` made has no revision.
type Build struct {
	// Version is that of the module: a tag, or a pseudo-version of the commit
	// (https://go.dev/ref/mod#pseudo-versions); "+dirty" at its end says that
	// files were changed.
	Version string
	// Revision is the commit, in full; Time when it was committed (RFC 3339).
	Revision, Time string
	// Modified says that files differed from the commit.
	Modified bool
	// Go is the version of the compiler, Platform the system and processor (linux/amd64).
	Go, Platform string
}

// Format is the version of something that programs of different age read and
// write: a file, or a message.
type Format struct {
	Name    string
	Version int
}

// ReadBuild returns the build of the running program.
func ReadBuild() Build {
	info, _ := debug.ReadBuildInfo()
	return readBuild(info)
}

func readBuild(info *debug.BuildInfo) Build {
	if info == nil {
		return Build{Version: "unknown"}
	}
	b := Build{Version: info.Main.Version, Go: info.GoVersion}
	system, processor := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		case "GOOS":
			system = s.Value
		case "GOARCH":
			processor = s.Value
		}
	}
	if system != "" {
		b.Platform = system + "/" + processor
	}
	if b.Version == "" || b.Version == "(devel)" {
		b.Version = "devel"
		if b.Revision != "" {
			b.Version += "-" + b.Revision[:min(12, len(b.Revision))]
			if b.Modified {
				b.Version += "+dirty"
			}
		}
	}
	return b
}

// Text is the answer to `version`: the name and version of the program, then a line each for commit,
// compiler, protocols, and formats, as far as they are known.
func (b Build) Text(name string, protocols []string, formats []Format) string {
	var out strings.Builder
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&out, "%-10s%s\n", key, value)
		}
	}
	fmt.Fprintln(&out, name, b.Version)
	commit := b.Revision
	if commit != "" && b.Time != "" {
		commit += " of " + b.Time
	}
	if b.Modified {
		commit += ", with changes"
	}
	line("commit", commit)
	line("go", strings.TrimSpace(b.Go+" "+b.Platform))
	line("protocol", strings.Join(protocols, ", "))
	var versions []string
	for _, f := range formats {
		versions = append(versions, fmt.Sprintf("%s %d", f.Name, f.Version))
	}
	line("formats", strings.Join(versions, ", "))
	return out.String()
}

// Version names the build in one word.
func Version() string { return ReadBuild().Version }
