package command

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/security"
	"github.com/httpctl/httpctl/pkg/view"
)

// aggregatorContext is how to reach one aggregator, under a name.
type aggregatorContext struct {
	Aggregator string       `yaml:"aggregator"`
	TLS        security.TLS `yaml:"tls,omitempty"`
}

// contexts is the file of contexts.
type contexts struct {
	// Current is the name of the one that is used where nothing else is said; "" is none.
	Current  string                       `yaml:"current,omitempty"`
	Contexts map[string]aggregatorContext `yaml:"contexts"`

	path string
}

// maxContexts bounds the file of contexts, in bytes.
const maxContexts = 1 << 20

// contextsPath is where contexts are kept: $XDG_CONFIG_HOME/httpctl/contexts.yaml, else that in
// ~/.config; "" if there is no home. A relative XDG_CONFIG_HOME is ignored, as the XDG specification says.
func contextsPath(getenv func(string) string) string {
	dir := getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) {
		home := getenv("HOME")
		if !filepath.IsAbs(home) {
			return ""
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "httpctl", "contexts.yaml")
}

// contexts reads the file; one that is not there has none.
func (w *world) contexts() (*contexts, error) {
	c := &contexts{Contexts: map[string]aggregatorContext{}, path: contextsPath(w.getenv)}
	if c.path == "" {
		return c, nil
	}
	info, err := os.Stat(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxContexts {
		return nil, fmt.Errorf("%s: want a file of at most %d bytes", c.path, maxContexts)
	}
	text, err := os.ReadFile(c.path)
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return c, nil
	}
	if err := yaml.UnmarshalWithOptions(text, c, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("%s: %s\nMend the file, or remove it and make its contexts anew with httpctl context set", c.path, yaml.FormatError(err, false, true))
	}
	if c.Contexts == nil {
		c.Contexts = map[string]aggregatorContext{}
	}
	return c, nil
}

// write replaces the file, for its user only: it names hosts and key files.
func (c *contexts) write() error {
	if c.path == "" {
		return errors.New("there is no home directory to keep contexts in: set HOME or XDG_CONFIG_HOME")
	}
	text, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	const hint = "; set XDG_CONFIG_HOME to a directory that this user may write in"
	if err := os.MkdirAll(filepath.Dir(c.path), 0o700); err != nil {
		return fmt.Errorf("make the directory of contexts: %w"+hint, err)
	}
	f, err := os.CreateTemp(filepath.Dir(c.path), ".contexts-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write the contexts: %w"+hint, err)
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), c.path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// find returns the named context, or a usage error with a proposal.
func (c *contexts) find(name string) (aggregatorContext, error) {
	if found, ok := c.Contexts[name]; ok {
		return found, nil
	}
	names := slices.Sorted(maps.Keys(c.Contexts))
	if len(names) == 0 {
		return aggregatorContext{}, usagef("there is no context %q, nor any other: make one with httpctl context set %s --aggregator ADDR", name, name)
	}
	if near := config.Nearest(name, names); near != "" {
		return aggregatorContext{}, usagef("there is no context %q; did you mean %q?", name, near)
	}
	return aggregatorContext{}, usagef("there is no context %q; there are: %s", name, strings.Join(names, ", "))
}

// place returns where the aggregator is, and with which certificate: what the flags say, else the
// context that --context names, else HTTPCTL_AGGREGATOR, else the context of HTTPCTL_CONTEXT, else
// the current one, else what FindAggregator finds. A context's certificate never goes to another's address.
func (r *reading) place() (address string, tls security.TLS, err error) {
	if r.address != "" {
		return r.address, r.tls, nil
	}
	name := r.context
	if name == "" {
		if address := r.w.getenv(config.EnvPrefix + "AGGREGATOR"); address != "" {
			return address, r.tls, nil
		}
		name = r.w.getenv(config.EnvPrefix + "CONTEXT")
	}
	all, err := r.w.contexts()
	if err != nil {
		return "", tls, err
	}
	if name == "" {
		name = all.Current
	}
	if name == "" {
		return config.FindAggregator("", r.w.uid, r.w.getenv), r.tls, nil
	}
	found, err := all.find(name)
	if err != nil {
		return "", tls, err
	}
	if !r.tls.IsZero() || r.tls.ServerName != "" { // the flags instead
		return found.Aggregator, r.tls, nil
	}
	return found.Aggregator, found.TLS, nil
}

var contextName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

func newContextCommand(w *world) *cobra.Command {
	r := &reading{w: w}
	list := func(*cobra.Command, []string) error {
		format, err := r.format()
		if err != nil {
			return err
		}
		all, err := w.contexts()
		if err != nil {
			return err
		}
		var rows []view.Context
		for _, name := range slices.Sorted(maps.Keys(all.Contexts)) {
			c := all.Contexts[name]
			rows = append(rows, view.Context{Name: name, Current: name == all.Current, Aggregator: c.Aggregator, Certificate: c.TLS.CertFile})
		}
		return view.WriteContexts(w.out, format, r.style(), rows)
	}
	cmd := &cobra.Command{
		Use:   "context",
		Short: "List the aggregators that have a name; name, use and forget them",
		Long: `A context is how to reach one aggregator: its address, and the files of mutual
TLS. The one in use is asked where neither --aggregator, --context nor
HTTPCTL_AGGREGATOR says otherwise. Contexts are kept in
$XDG_CONFIG_HOME/httpctl/contexts.yaml, or there in ~/.config.`,
		Example: `  httpctl context set prod --aggregator metrics.example.org:7420 --tls-ca ca.pem --tls-cert me.pem --tls-key me.key
  httpctl context use prod
  httpctl alerts --context staging`,
		Args: noArguments,
		RunE: list,
	}
	r.addOutput(cmd)
	complete := func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		return w.contextNames(), cobra.ShellCompDirectiveNoFileComp
	}
	listing := &cobra.Command{Use: "list", Short: "List them", Example: "  httpctl context list", Args: noArguments, RunE: list}
	r.addOutput(listing)
	use := &cobra.Command{
		Use: "use NAME", Short: "Use a context from now on", Example: "  httpctl context use prod", Args: arguments(1, 1, "the name of a context"),
		ValidArgsFunction: complete,
		RunE: func(_ *cobra.Command, args []string) error {
			return w.changeContexts(func(c *contexts) error {
				if _, err := c.find(args[0]); err != nil {
					return err
				}
				c.Current = args[0]
				return nil
			}, "Using context %s.\n", args[0])
		},
	}
	remove := &cobra.Command{
		Use: "delete NAME", Short: "Forget a context", Example: "  httpctl context delete old", Args: arguments(1, 1, "the name of a context"),
		ValidArgsFunction: complete,
		RunE: func(_ *cobra.Command, args []string) error {
			return w.changeContexts(func(c *contexts) error {
				if _, err := c.find(args[0]); err != nil {
					return err
				}
				delete(c.Contexts, args[0])
				if c.Current == args[0] {
					c.Current = ""
				}
				return nil
			}, "Forgot context %s.\n", args[0])
		},
	}
	cmd.AddCommand(listing, newContextSetCommand(w), use, remove)
	return cmd
}

func newContextSetCommand(w *world) *cobra.Command {
	r := &reading{w: w}
	cmd := &cobra.Command{
		Use:     "set NAME --aggregator ADDR",
		Short:   "Make a context, or change it",
		Long:    `Make a context, or set it anew. The first one is used at once. Names of files are kept as absolute paths.`,
		Example: `  httpctl context set prod --aggregator metrics.example.org:7420 --tls-ca ca.pem --tls-cert me.pem --tls-key me.key`,
		Args:    arguments(1, 1, "a name for the context"),
		RunE: func(_ *cobra.Command, args []string) error {
			name := args[0]
			if !contextName.MatchString(name) {
				return usagef("%q is no name for a context: want letters, digits, dots, dashes and underscores, 63 at most", name)
			}
			if r.address == "" {
				return usagef("context set %s needs --aggregator ADDR", name)
			}
			if _, _, err := security.SplitAddress(r.address); err != nil {
				return usagef("--aggregator: %s", err)
			}
			for _, file := range []*string{&r.tls.CAFile, &r.tls.CertFile, &r.tls.KeyFile} {
				if *file == "" {
					continue
				}
				path, err := filepath.Abs(*file)
				if err != nil {
					return err
				}
				if _, err := os.Stat(path); err != nil {
					return usageError{err.Error()}
				}
				*file = path
			}
			c, err := r.connect() // checks the address against the certificate, and opens nothing
			if err != nil {
				return err
			}
			_ = c.Close()
			return w.changeContexts(func(c *contexts) error {
				c.Contexts[name] = aggregatorContext{r.address, r.tls}
				if len(c.Contexts) == 1 {
					c.Current = name
				}
				return nil
			}, "Kept context %s.\n", name)
		},
	}
	r.addConnection(cmd)
	_ = cmd.Flags().MarkHidden("context") // it is the argument
	return cmd
}

// changeContexts reads the contexts, changes them, writes them, and says so.
func (w *world) changeContexts(change func(*contexts) error, format string, name string) error {
	all, err := w.contexts()
	if err != nil {
		return err
	}
	if err := change(all); err != nil {
		return err
	}
	if err := all.write(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w.out, format, name)
	return err
}

// contextNames are for completion: a file that cannot be read has none.
func (w *world) contextNames() []string {
	all, err := w.contexts()
	if err != nil {
		return nil
	}
	return slices.Sorted(maps.Keys(all.Contexts))
}
