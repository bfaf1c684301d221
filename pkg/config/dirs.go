package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// SystemDataDir is where daemons and root keep their state.
const SystemDataDir = "/var/lib/httpctl"

// DefaultAddress is where an aggregator listens unless told otherwise.
const DefaultAddress = "127.0.0.1:7420"

// DataDir returns the directory for state of the user uid: SystemDataDir for
// root, else $XDG_STATE_HOME/httpctl, else ~/.local/state/httpctl. getenv is
// os.Getenv. It returns "" when there is no home. As the XDG specification
// says, a relative XDG_STATE_HOME is ignored.
func DataDir(uid int, getenv func(string) string) string {
	if uid == 0 {
		return SystemDataDir
	}
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "httpctl")
	}
	if home := getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "httpctl")
	}
	return ""
}

// SocketPath returns the Unix socket of the aggregator whose data directory is dir.
func SocketPath(dir string) string { return filepath.Join(dir, "httpctl.sock") }

// TokenPath returns the file in the data directory dir whose token lets change an aggregator over loopback.
func TokenPath(dir string) string { return filepath.Join(dir, "admin-token") }

// TokenPaths are the files in which FindAggregator's user may find that token.
func TokenPaths(uid int, getenv func(string) string) (paths []string) {
	for _, dir := range []string{DataDir(uid, getenv), SystemDataDir} {
		if dir != "" && !slices.Contains(paths, TokenPath(dir)) {
			paths = append(paths, TokenPath(dir))
		}
	}
	return paths
}

// FindAggregator returns the address that a reading command dials: flag if it
// is set, else $HTTPCTL_AGGREGATOR, else "unix:" and the first socket there is of the
// user's and the system's data directories, else DefaultAddress.
func FindAggregator(flag string, uid int, getenv func(string) string) string {
	if flag != "" {
		return flag
	}
	if address := getenv(EnvPrefix + "AGGREGATOR"); address != "" {
		return address
	}
	for _, dir := range []string{DataDir(uid, getenv), SystemDataDir} {
		if dir == "" {
			continue
		}
		path := SocketPath(dir)
		if info, err := os.Stat(path); err == nil && info.Mode().Type() == os.ModeSocket {
			return "unix:" + path
		}
	}
	return DefaultAddress
}

// HiddenDataDir returns the data directory in which FindAggregator may not
// look for a socket, because it is another user's; "" if there is none.
func HiddenDataDir(uid int, getenv func(string) string) string {
	return hidden([]string{DataDir(uid, getenv), SystemDataDir}, os.Stat)
}

func hidden(dirs []string, stat func(string) (fs.FileInfo, error)) string {
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		if _, err := stat(SocketPath(dir)); errors.Is(err, fs.ErrPermission) {
			return dir
		}
	}
	return ""
}
