package testkit

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

//go:embed nginx.conf
var nginxConf string

// WriteNginx writes into dir a site (www/small/N.txt, www/medium/N.bin and
// www/large/N.bin, for N from 1 to 100) and the nginx.conf that serves it on
// port with a log of one JSON line a request; it returns the configuration's
// path, for `nginx -c`. dir must be absolute and readable by nobody.
func WriteNginx(dir string, port int) (conf string, err error) {
	for _, class := range []struct {
		name, ext string
		size      int
	}{{"small", "txt", 300}, {"medium", "bin", 9_000}, {"large", "bin", 120_000}} {
		sub := filepath.Join(dir, "www", class.name)
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return "", err
		}
		line := class.name + " body\n"
		for i := 1; i <= 100; i++ {
			body := strings.Repeat(line, (class.size+i*class.size/100)/len(line))
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("%d.%s", i, class.ext)), []byte(body), 0o644); err != nil {
				return "", err
			}
		}
	}
	conf = filepath.Join(dir, "nginx.conf")
	text := strings.NewReplacer("DIR", dir, "PORT", strconv.Itoa(port)).Replace(nginxConf)
	return conf, os.WriteFile(conf, []byte(text), 0o644)
}

// AccessLog is what nginx says it served: counts by the dimensions of
// `httpctl top`, and volume in wire bytes by domain.
type AccessLog struct {
	Requests         int64
	Tops             map[string]map[string]int64
	Upload, Download map[string]int64
}

// ReadAccessLog adds up the log in a directory that WriteNginx made.
func ReadAccessLog(dir string) (*AccessLog, error) {
	path := filepath.Join(dir, "access.log")
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a := &AccessLog{Tops: map[string]map[string]int64{}, Upload: map[string]int64{}, Download: map[string]int64{}}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var r struct {
			Method, Host, URI, Agent string
			Status                   int
			RequestLength            int64 `json:"request_length"`
			BytesSent                int64 `json:"bytes_sent"`
		}
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		a.Requests++
		target, _, _ := strings.Cut(r.URI, "?")
		first, _, _ := strings.Cut(strings.TrimPrefix(target, "/"), "/")
		for dimension, key := range map[string]string{
			"method": r.Method, "status": strconv.Itoa(r.Status), "domain": r.Host,
			"section": r.Host + "/" + first, "user_agent": r.Agent,
		} {
			if a.Tops[dimension] == nil {
				a.Tops[dimension] = map[string]int64{}
			}
			a.Tops[dimension][key]++
		}
		a.Upload[r.Host] += r.RequestLength
		a.Download[r.Host] += r.BytesSent
	}
	return a, lines.Err()
}
