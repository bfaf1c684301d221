package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	agent "github.com/httpctl/httpctl/agent/app"
	aggregator "github.com/httpctl/httpctl/aggregator/app"
	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/cmd/httpctl/live"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/lifecycle"
	"github.com/httpctl/httpctl/pkg/stat"
	"github.com/httpctl/httpctl/pkg/telemetry"
	"github.com/httpctl/httpctl/pkg/view"
)

// upStopWait bounds the end of `httpctl up`.
const upStopWait = 10 * time.Second

func newUpCommand(w *world) *cobra.Command {
	r := &reading{w: w}
	var interfaces, namespaces, ports, listen []string
	var configFile, data, replay, page string
	var once bool
	cmd := &cobra.Command{
		Use:   "up -i IFACE",
		Short: "Watch this host: agent, aggregator and dashboard in one process",
		Long: `Watch this host: capture, learn, alert and show, in one process. What is
counted is kept in the data directory, so that baseline and alerts outlive a
restart. Other httpctl commands find it by its socket there. On a terminal q
ends it, and everywhere Ctrl-C.

Capturing needs root, or the capability CAP_NET_RAW; in other network
namespaces, CAP_SYS_ADMIN too.`,
		Example: `  sudo httpctl up -i eth0
  sudo httpctl up -i eth0 -i lo --ports 80,8080
  sudo httpctl up -i any --data /srv/httpctl --listen 127.0.0.1:7420
  sudo httpctl up --netns blue                          # one that ip netns has made
  httpctl up --replay capture.pcap --data /tmp/replay   # as if it happened now`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			format, err := r.format()
			if err != nil {
				return err
			}
			agentConfig, aggregatorConfig := agent.DefaultConfig(), aggregator.DefaultConfig()
			aggregatorConfig.Listen = nil
			agentConfig.Tail.Allow = true // who may ask for it is who may sniff here: root, and the user of this process
			f, err := config.Load(configFile, w.environ,
				config.Section{Name: "agent", Into: &agentConfig}, config.Section{Name: "aggregator", Into: &aggregatorConfig})
			if err != nil {
				return usageError{err.Error()}
			}
			set := func(key string, values []string, flag string) {
				if err == nil && len(values) > 0 {
					err = f.Set(key, strings.Join(values, ","), "flag "+flag)
				}
			}
			set("agent.capture.interfaces", interfaces, "--interface")
			set("agent.capture.namespaces", namespaces, "--netns")
			set("agent.capture.ports", ports, "--ports")
			set("aggregator.listen", listen, "--listen")
			if data != "" {
				set("aggregator.data", []string{data}, "--data")
			}
			if err != nil {
				return usageError{err.Error()}
			}
			switch {
			case replay != "" && len(interfaces) > 0:
				return usagef("--replay and --interface exclude each other")
			case replay != "" && len(namespaces) > 0:
				return usagef("--replay and --netns exclude each other")
			case replay != "":
				agentConfig.Capture.Interfaces = []string{"any"} // not used, but a configuration must have one
			case len(agentConfig.Capture.Interfaces) == 0 && len(agentConfig.Capture.Namespaces) == 0:
				return usagef("which interface? Name one with -i, or all with -i any; or a network namespace with --netns")
			}
			if aggregatorConfig.Data, err = filepath.Abs(aggregatorConfig.Data); err != nil {
				return err
			}
			if err := choosePage(f, &aggregatorConfig, page, cmd.Flags().Changed("web")); err != nil {
				return usageError{err.Error()}
			}
			// Both halves share the data directory, and talk over its socket.
			agentConfig.State = filepath.Join(aggregatorConfig.Data, "agent")
			agentConfig.Aggregator = "unix:" + config.SocketPath(aggregatorConfig.Data)
			if err := f.Validate(stat.Names()); err != nil {
				return usageError{err.Error()}
			}
			for _, warning := range f.Warnings {
				fmt.Fprintln(w.err, "httpctl: "+errorText(errors.New(warning)))
			}
			return w.up(cmd.Context(), f, agentConfig, aggregatorConfig, replay, w.live(format, once))
		},
	}
	r.addOutput(cmd)
	cmd.Flags().StringArrayVarP(&interfaces, "interface", "i", nil, "capture on `IFACE`; may be given several times; any is all")
	_ = cmd.RegisterFlagCompletionFunc("interface", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return interfaceNames(), cobra.ShellCompDirectiveNoFileComp
	})
	cmd.Flags().StringArrayVar(&namespaces, "netns", nil, "capture in network namespace `NAME`, of /run/netns or a path such as /proc/1234/ns/net; may be given several times")
	cmd.Flags().StringSliceVar(&ports, "ports", nil, "only TCP `PORTS`, such as 80,8080 (default: HTTP on any port)")
	cmd.Flags().StringVar(&configFile, "config", "", "configuration `FILE`")
	cmd.Flags().StringVar(&data, "data", "", "`DIR` for the database, the socket and the agent's state (default: the user's state directory)")
	cmd.Flags().StringArrayVar(&listen, "listen", nil, "serve other programs on `ADDR` too, such as 127.0.0.1:7420")
	cmd.Flags().StringVar(&page, "web", defaultPage, "serve the web page on `ADDR`; none serves none. The default is left out when something else has it")
	cmd.Flags().StringVar(&replay, "replay", "", "show the capture `FILE` as if it happened now, instead of capturing")
	return cmd
}

// defaultPage is where the web page is served when nobody says where: any program of this host can read it there.
const defaultPage = "127.0.0.1:7480"

// choosePage sets where the web page is served: on the flag's address, else where the file says, else by default.
func choosePage(f *config.File, cfg *aggregator.Config, page string, given bool) error {
	const key = "aggregator.web.listen"
	switch {
	case given && page == "none":
		cfg.Web.Listen = nil
	case given:
		return f.Set(key, page, "flag --web")
	case f.Where(key) == "":
		cfg.Web.Listen, cfg.Web.Optional = []string{defaultPage}, true // there may be another httpctl up
	}
	return nil
}

// up runs the aggregator, then the agent, then the dashboard, until ctx is
// done or one of them fails.
func (w *world) up(ctx context.Context, f *config.File, agentConfig agent.Config, aggregatorConfig aggregator.Config, replay string, shown Live) (err error) {
	// On a terminal the dashboard has the screen, so what somebody must know is told at the end.
	messages := &held{}
	logTo := w.err
	if shown.Terminal {
		logTo = messages
		if f.Log.Level == "info" {
			f.Log.Level = "warn"
		}
	}
	log := telemetry.NewLogger(f.Log, logTo)
	if shown.Terminal {
		log = slog.New(withoutHistory{log.Handler()})
	}
	var stack lifecycle.Stack
	defer func() {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), upStopWait)
		defer cancel()
		err = errors.Join(err, stack.Stop(stopCtx))
		messages.writeTo(w.err)
	}()

	// What this host cannot do is said before a database is made.
	if err := agent.Check(agentConfig, replay); err != nil {
		return err
	}
	center, err := aggregator.Start(ctx, f.Settings, aggregatorConfig, log)
	if err != nil {
		return err
	}
	stack.Push("aggregator", center.Stop)
	for _, url := range center.WebURLs() {
		fmt.Fprintf(w.err, "httpctl: the web page is at %s\n", url)
	}
	watcher, err := agent.Start(ctx, f.Settings, agentConfig, replay, log)
	if err != nil {
		return err
	}
	stack.Push("agent", watcher.Stop)
	watcher.GiveUp()

	c, err := client.New(client.Options{Address: agentConfig.Aggregator})
	if err != nil {
		return err
	}
	stack.Push("client", func(context.Context) error { return c.Close() })

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	failed := lifecycle.NewGroup(ctx)
	stack.Push("watch", failed.Stop)
	failed.Go("watch", func(ctx context.Context) error {
		select {
		case err := <-center.Failed():
			cancel(fmt.Errorf("aggregator: %w", err))
		case err := <-watcher.Failed():
			cancel(fmt.Errorf("agent: %w", err))
		case <-ctx.Done():
		}
		return nil
	})
	shown.Hour = hourOf(c, client.Question{})
	err = RunDashboard(ctx, shown, func(ctx context.Context, r live.Request) (*view.Dashboard, error) {
		return c.Dashboard(ctx, narrow(client.Question{Live: true}, r))
	})
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = errors.Join(err, cause)
	}
	return err
}

// interfaceNames are what can be captured on, for completion.
func interfaceNames() []string {
	names := []string{"any"}
	all, _ := net.Interfaces()
	for _, i := range all {
		names = append(names, i.Name)
	}
	return names
}
