package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/telemetry"
)

// reloader reads the configuration again when the program is told to (SIGHUP).
type reloader struct {
	statistics []string
	load       func() (*config.File, error) // as the start did: file, environment, flags
	now        *config.File                 // in force
	log        *slog.Logger
	setLevel   func(config.Log)
}

// reload puts in force what has changed and can change, and says what became of each key. When anything is
// wrong, all stays as it was.
func (r *reloader) reload(ctx context.Context, running Running) {
	f, changes, err := r.read()
	if err == nil {
		err = running.Reload(ctx, f)
	}
	running.Reloads().Done(err)
	if err != nil {
		r.log.Error("the configuration is not reloaded; all settings stay as they were", "err", err)
		return
	}
	// What is told about the reload is told at the more talkative of both levels.
	if before := r.now.Log; telemetry.MoreTalkative(before, f.Log) {
		defer r.setLevel(f.Log)
	} else {
		r.setLevel(f.Log)
	}
	r.now = f
	for _, w := range f.Warnings {
		r.log.Warn(w)
	}
	restart := 0
	for _, c := range changes {
		if c.Reload == "" {
			restart++
			r.log.Warn("a changed setting needs a restart", "key", c.Path, "in_force", c.Old, "configured", c.New)
			continue
		}
		r.log.Info("a changed setting is in force", "key", c.Path, "was", c.Old, "is", c.New, "from", c.Reload)
	}
	r.log.Info("the configuration is reloaded", "file", f.Path, "changed", len(changes)-restart, "need_restart", restart)
}

// read reads the configuration, and leaves what needs a restart as it is.
func (r *reloader) read() (*config.File, []config.Change, error) {
	f, err := r.load()
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w; a program that confines itself reads only in the folders that its files were in when it started", err)
	}
	if err != nil {
		return nil, nil, err
	}
	changes := f.Keep(r.now)
	if err := f.Validate(r.statistics); err != nil {
		return nil, nil, fmt.Errorf("what has changed does not go together with what needs a restart: %w", err)
	}
	return f, changes, nil
}
