package test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestImages builds the images twice and looks at what is in them: one static program
// for each processor, its licence, its directory, and nothing else but httpctl beside the aggregator.
func TestImages(t *testing.T) {
	if os.Getenv("HTTPCTL_IMAGES") != "full" {
		t.Skip("takes a minute: make images-test")
	}
	installed(t, "go", "buildah")
	build := func() string {
		dir := t.TempDir()
		cmd := exec.Command("../scripts/images")
		cmd.Env = append(os.Environ(), "DIST="+dir, "SOURCE_DATE_EPOCH=1767323045")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("scripts/images: %v\n%s", err, out)
		}
		return dir
	}
	one, other := build(), build()
	files := names(t, one)
	if len(files) != 3 || !slices.Equal(files, names(t, other)) {
		t.Fatalf("one build makes %v, the other %v", files, names(t, other))
	}
	for _, file := range files {
		data := read(t, filepath.Join(one, file))
		if !bytes.Equal(data, read(t, filepath.Join(other, file))) {
			t.Errorf("%s differs from one build to the other", file)
		}
		name, _, _ := strings.Cut(file, "_")
		image(t, name, members(t, bytes.NewReader(data)))
	}
}

// member is a file of an archive, with what the test looks at.
type member struct {
	header *tar.Header
	data   []byte
}

func members(t *testing.T, r io.Reader) map[string]member {
	t.Helper()
	all := map[string]member{}
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.Trim(strings.TrimPrefix(h.Name, "./"), "/")] = member{h, data}
	}
}

// image looks at an OCI layout (https://github.com/opencontainers/image-spec).
func image(t *testing.T, name string, layout map[string]member) {
	t.Helper()
	type descriptor struct {
		Digest      string
		Platform    struct{ Architecture, OS string }
		Annotations map[string]string
	}
	get := func(digest string, into any) {
		t.Helper()
		m, ok := layout["blobs/"+strings.ReplaceAll(digest, ":", "/")]
		if !ok {
			t.Fatalf("%s: no blob %s", name, digest)
		}
		if err := json.Unmarshal(m.data, into); err != nil {
			t.Fatalf("%s: %s: %v", name, digest, err)
		}
	}
	var top, list struct{ Manifests []descriptor }
	if err := json.Unmarshal(layout["index.json"].data, &top); err != nil || len(top.Manifests) != 1 {
		t.Fatalf("%s: index of %d, %v", name, len(top.Manifests), err)
	}
	if ref := top.Manifests[0].Annotations["org.opencontainers.image.ref.name"]; !strings.HasPrefix(ref, name+":v") {
		t.Errorf("%s is loaded as %s", name, ref)
	}
	get(top.Manifests[0].Digest, &list)
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	if len(list.Manifests) != len(machines) {
		t.Errorf("%s is for %d processors, want %d", name, len(list.Manifests), len(machines))
	}
	for _, d := range list.Manifests {
		var manifest struct {
			Config      descriptor
			Layers      []descriptor
			Annotations map[string]string
		}
		var config struct {
			Created, Architecture, OS string
			Config                    struct {
				User       string
				Entrypoint []string
				Env        []string
				Volumes    map[string]struct{}
				Labels     map[string]string
			}
		}
		get(d.Digest, &manifest)
		get(manifest.Config.Digest, &config)
		what := name + " for " + d.Platform.OS + "/" + d.Platform.Architecture
		user, state := "65532:65532", "var/lib/httpctl"
		switch name {
		case "httpctl":
			state = ""
		case "httpctl-agent":
			user, state = "0:0", "var/lib/httpctl-agent"
		}
		if config.OS != "linux" || config.Architecture != d.Platform.Architecture || config.Created != "2026-01-02T03:04:05Z" ||
			config.Config.User != user || !slices.Equal(config.Config.Entrypoint, []string{"/usr/bin/" + name}) || len(manifest.Layers) != 1 {
			t.Errorf("%s is %+v", what, config)
		}
		// A container without settings keeps its state in the volume.
		if variable := map[string]string{"httpctl-agent": "HTTPCTL_AGENT_STATE", "httpctl-aggregator": "HTTPCTL_AGGREGATOR_DATA"}[name]; variable != "" {
			_, volume := config.Config.Volumes["/"+state]
			if want := variable + "=/" + state; !volume || !slices.Contains(config.Config.Env, want) {
				t.Errorf("%s has the volumes %v and the environment %q, want /%s and %s", what, config.Config.Volumes, config.Config.Env, state, want)
			}
		}
		for _, key := range []string{"title", "version", "revision", "licenses", "source", "created"} {
			key = "org.opencontainers.image." + key
			if v := config.Config.Labels[key]; v == "" || v != manifest.Annotations[key] {
				t.Errorf("%s: label %s = %q, annotation %q", what, key, v, manifest.Annotations[key])
			}
		}
		packed := layout["blobs/"+strings.ReplaceAll(manifest.Layers[0].Digest, ":", "/")]
		unpacked, err := gzip.NewReader(bytes.NewReader(packed.data))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		var got []string
		for path, m := range members(t, unpacked) {
			h := m.header
			if h.Typeflag != tar.TypeDir {
				got = append(got, path)
			}
			owner := 0
			if path == state && name != "httpctl-agent" {
				owner = 65532
			}
			if h.Uid != owner || h.Gid != owner || h.Mode&0o022 != 0 || h.Mode&0o7000 != 0 || h.ModTime.Unix() != 1767323045 {
				t.Errorf("%s: %s is of %d:%d, mode %o, of %v", what, path, h.Uid, h.Gid, h.Mode, h.ModTime.UTC())
			}
			if strings.HasPrefix(path, "usr/bin/") && h.Typeflag != tar.TypeDir {
				static(t, what, m.data, machines[d.Platform.Architecture])
			}
		}
		slices.Sort(got)
		want := []string{"usr/bin/" + name, "usr/share/doc/" + name + "/LICENSE"}
		if name == "httpctl-aggregator" {
			want = append([]string{"usr/bin/httpctl"}, want...)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s holds %v, want %v", what, got, want)
		}
	}
}

// static wants a program that needs no loader and no library.
func static(t *testing.T, what string, program []byte, machine elf.Machine) {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if f.Machine != machine {
		t.Errorf("%s: the program is for %v", what, f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("%s: the program is not static: it has %v", what, p.Type)
		}
	}
}
