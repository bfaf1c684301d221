package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed assets
var embedded embed.FS

// asset is a file of the page.
type asset struct {
	kind, tag string
	plain     []byte
	packed    map[string][]byte // by content coding
}

// readAssets reads the files of the page, by their path on the server. A file NAME.br or NAME.gz is NAME in that
// coding; what has no .gz is compressed here.
func readAssets(files fs.FS) (map[string]*asset, error) {
	assets := map[string]*asset{}
	err := fs.WalkDir(files, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || packing(name) != "" {
			return err
		}
		plain, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(plain)
		a := &asset{kind: kindOf(name), tag: hex.EncodeToString(sum[:8]), plain: plain, packed: map[string][]byte{}}
		for _, suffix := range []string{".br", ".gz"} {
			if packed, err := fs.ReadFile(files, name+suffix); err == nil {
				a.packed[packing(suffix)] = packed
			}
		}
		if a.packed["gzip"] == nil {
			var b bytes.Buffer
			z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // the level is valid
			_, _ = z.Write(plain)                                 // a buffer takes all
			_ = z.Close()
			if b.Len() < len(plain) {
				a.packed["gzip"] = b.Bytes()
			}
		}
		where := "/" + name
		if name == "assets/index.html" {
			where = "/"
		}
		assets[where] = a
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the files of the web page: %w", err)
	}
	return assets, nil
}

func packing(name string) string {
	switch path.Ext(name) {
	case ".br":
		return "br"
	case ".gz":
		return "gzip"
	}
	return ""
}

// kindOf does not ask the system, whose tables differ from host to host.
func kindOf(name string) string {
	switch ext := path.Ext(name); ext {
	case ".html", ".css", ".js", ".txt":
		return map[string]string{".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".txt": "text/plain"}[ext] + "; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".json", ".map":
		return "application/json"
	case ".webmanifest":
		return "application/manifest+json"
	case ".png":
		return "image/png"
	case ".woff2":
		return "font/woff2"
	}
	return "application/octet-stream"
}

// serve sends the file in the best coding that the browser takes, unless it has it.
func (a *asset) serve(w http.ResponseWriter, r *http.Request) {
	body, tag := a.plain, a.tag
	h := w.Header()
	for _, coding := range []string{"br", "gzip"} {
		if packed := a.packed[coding]; packed != nil && accepts(r, coding) {
			body, tag = packed, a.tag+"-"+coding
			h.Set("Content-Encoding", coding)
			break
		}
	}
	h.Set("Content-Type", a.kind)
	h.Set("Cache-Control", "no-cache") // ask each time whether it is still the same
	h.Set("Etag", `"`+tag+`"`)
	for _, have := range strings.Split(r.Header.Get("If-None-Match"), ",") {
		if have = strings.TrimPrefix(strings.TrimSpace(have), "W/"); have == `"`+tag+`"` || have == "*" {
			h.Del("Content-Encoding")
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
}

// accepts reports whether a request takes a content coding (RFC 9110 section 12.5.3).
func accepts(r *http.Request, coding string) bool {
	any := false
	for _, part := range strings.Split(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		name, parameters, err := mime.ParseMediaType("x/" + strings.TrimSpace(part))
		if err != nil {
			continue
		}
		weight := 1.0
		if q, ok := parameters["q"]; ok {
			if weight, err = strconv.ParseFloat(q, 64); err != nil {
				weight = 0
			}
		}
		switch name {
		case "x/" + coding:
			return weight > 0
		case "x/*":
			any = weight > 0
		}
	}
	return any
}
