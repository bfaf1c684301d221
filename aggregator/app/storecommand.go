package app

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/httpctl/httpctl/aggregator/enroll"
	"github.com/httpctl/httpctl/aggregator/judge"
	"github.com/httpctl/httpctl/aggregator/store/bolt"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/daemon"
)

// Exit codes of the command store.
const (
	storeDone   = 0
	storeFailed = 1 // or the file is damaged
	storeUsage  = 2
	storeClosed = 3 // it cannot be opened, so nothing is known
)

// storeHelp is the help of `httpctl-aggregator store`.
func storeHelp() daemon.Help {
	return daemon.Help{
		Name:  "httpctl-aggregator store",
		Short: "check, compact, back up or restore the database",
		Long:  `Checks, compacts, backs up or restores the aggregator's database. All but backup need the aggregator stopped.`,
		Example: `sudo httpctl-aggregator store backup -o /srv/backup/httpctl.db
sudo httpctl-aggregator store check /srv/backup/httpctl.db
sudo httpctl-aggregator store backup -o - | ssh backup.example.org 'cat > httpctl.db'
sudo httpctl-aggregator store compact`,
		Usage: []string{"httpctl-aggregator store COMMAND [flags]"},
		Commands: []daemon.Entry{
			{Name: "check [FILE]", Text: "read all of the database (or of that file) and say what is damaged, where, and what to do"},
			{Name: "compact", Text: "write it anew without free space, verify that, and put it in the place of the old one"},
			{Name: "backup -o FILE", Text: "copy it, also while the aggregator runs; - is the standard output"},
			{Name: "restore FILE", Text: "verify a backup and put it in the place of the database; - is the standard input"},
		},
		Flags: []daemon.Entry{
			{Name: "--data DIR", Text: "the aggregator's data directory"},
			{Name: "--config FILE", Text: "the aggregator's configuration, which names it (aggregator.data)"},
			{Name: "-o FILE", Text: "backup: where to"},
			{Name: "--drop-damaged", Text: "compact: leave out what is damaged, and say what"},
			{Name: "--force", Text: "restore: also where the database holds buckets; it is kept beside"},
		},
		End: "Exit codes: 0 done, or sound; 1 failed, or damaged; 2 wrong usage; 3 the file cannot be opened.",
	}
}

// storeCall is one call of the command store.
type storeCall struct {
	ctx            context.Context
	stdout, stderr io.Writer
	data, path     string   // the data directory, and the database in it
	files          []string // named on the command line
	output         string
	drop, force    bool
}

// storeCommand is `httpctl-aggregator store`.
func storeCommand(ctx context.Context, args, env []string, stdout, stderr io.Writer) int {
	wrong := func(format string, args ...any) int {
		fmt.Fprintf(stderr, "httpctl-aggregator store: "+format+"\n", args...)
		return storeUsage
	}
	commands := map[string]struct {
		least, most int // files
		run         func(*storeCall) int
	}{
		"check":   {0, 1, (*storeCall).check},
		"compact": {0, 0, (*storeCall).compact},
		"backup":  {0, 0, (*storeCall).backup},
		"restore": {1, 1, (*storeCall).restore},
	}
	if len(args) == 0 {
		storeHelp().Write(stderr)
		return storeUsage
	}
	if args[0] == "help" || strings.TrimLeft(args[0], "-") == "help" || args[0] == "-h" {
		storeHelp().Write(stdout)
		return storeDone
	}
	command, ok := commands[args[0]]
	if !ok {
		return wrong("%v\nSee httpctl-aggregator store --help.", daemon.Unknown(args[0], slices.Collect(maps.Keys(commands))))
	}
	c := &storeCall{ctx: ctx, stdout: stdout, stderr: stderr}
	flags := daemon.Quiet("httpctl-aggregator store " + args[0])
	data := flags.String("data", "", "")
	file := flags.String("config", "", "")
	switch args[0] {
	case "compact":
		flags.BoolVar(&c.drop, "drop-damaged", false, "")
	case "backup":
		flags.StringVar(&c.output, "o", "", "")
	case "restore":
		flags.BoolVar(&c.force, "force", false, "")
	}
	for rest := args[1:]; ; rest = flags.Args()[1:] { // flags may follow a file
		if err := flags.Parse(rest); errors.Is(err, flag.ErrHelp) {
			storeHelp().Write(stdout)
			return storeDone
		} else if err != nil {
			return wrong("%v\nSee httpctl-aggregator store --help.", daemon.FlagError(flags, err))
		}
		if flags.NArg() == 0 {
			break
		}
		c.files = append(c.files, flags.Arg(0))
	}
	switch {
	case len(c.files) > command.most:
		return wrong("unexpected argument %q", c.files[command.most])
	case len(c.files) < command.least:
		return wrong("%s what? Name a file", args[0])
	case args[0] == "backup" && c.output == "":
		return wrong("backup to where? Name a file with -o; - is the standard output")
	}
	cfg := DefaultConfig()
	f, err := config.Load(*file, env, config.Section{Name: "aggregator", Into: &cfg})
	if err == nil && *data != "" {
		err = f.Set("aggregator.data", *data, "flag --data")
	}
	if err == nil && cfg.Data == "" {
		err = errors.New("no data directory is known: name it with --data")
	}
	if err != nil {
		return wrong("%v", err)
	}
	c.data, c.path = cfg.Data, filepath.Join(cfg.Data, databaseName)
	return command.run(c)
}

// failed says why a command has failed.
func (c *storeCall) failed(err error) int {
	fmt.Fprintf(c.stderr, "httpctl-aggregator store: %v\n", err)
	return storeFailed
}

// checkOptions have all damage printed.
func (c *storeCall) checkOptions() bolt.CheckOptions {
	return bolt.CheckOptions{State: checkState, Found: func(d bolt.Damage) {
		fmt.Fprintf(c.stdout, "damaged: %v\n    %s\n", &d, d.Costs)
	}}
}

// checkState looks at what the store keeps for others.
func checkState(key string, value []byte) error {
	if key == widthKey {
		var w width
		return json.Unmarshal(value, &w)
	}
	if err := enroll.CheckState(key, value); err != nil {
		return err
	}
	return judge.CheckState(key, value)
}

func (c *storeCall) check() int {
	look, path := bolt.Check, c.path
	if len(c.files) > 0 {
		look, path = bolt.CheckBackup, c.files[0]
	}
	r, err := look(c.ctx, path, c.checkOptions())
	if err != nil {
		fmt.Fprintf(c.stderr, "httpctl-aggregator store: %v\n", err)
		return storeClosed
	}
	if r.Damages > 0 {
		fmt.Fprintln(c.stdout)
	}
	c.report(r)
	if r.Damages > 0 {
		return storeFailed
	}
	return storeDone
}

// report prints what a file holds.
func (c *storeCall) report(r *bolt.Report) {
	verdict := "sound"
	if r.Damages > 0 {
		verdict = fmt.Sprintf("damaged in %d places", r.Damages)
	}
	fmt.Fprintf(c.stdout, "%s: %s\n", r.Path, verdict)
	if r.Pages == 0 {
		return // nothing was read
	}
	when := func(ns int64) string {
		if ns == 0 {
			return "never"
		}
		return time.Unix(0, ns).UTC().Format(time.RFC3339Nano)
	}
	fmt.Fprintf(c.stdout, "intervals       %d, from %s to %s\n", r.Intervals, when(r.OldestStart), when(r.NewestEnd))
	fmt.Fprintf(c.stdout, "roll-ups        %d minutes, hours and days\n", r.Rollups)
	fmt.Fprintf(c.stdout, "hosts           %d\n", r.Hosts)
	fmt.Fprintf(c.stdout, "buckets         %d\n", r.Buckets)
	fmt.Fprintf(c.stdout, "state           %d values\n", r.State)
	fmt.Fprintf(c.stdout, "sealed through  %s\n", when(r.SealedThrough))
	fmt.Fprintf(c.stdout, "size            %d bytes, %d pages of %d, %d of them free\n", r.Bytes, r.Pages, r.PageSize, r.Free)
	if r.Unaccounted > 0 {
		fmt.Fprintf(c.stdout, "                %d more are in no use: store compact takes them back\n", r.Unaccounted)
	}
}

func (c *storeCall) compact() int {
	before, after, err := bolt.Compact(c.ctx, c.path, bolt.CompactOptions{CheckOptions: c.checkOptions(), DropDamaged: c.drop,
		Dropped: func(what string) { fmt.Fprintf(c.stdout, "left out: %s\n", what) }})
	if err != nil {
		return c.failed(err)
	}
	fmt.Fprintf(c.stdout, "%s: %d bytes before, %d after\n", c.path, before, after)
	return storeDone
}
