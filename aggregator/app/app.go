// Package app wires the aggregator: store, ingest, judge and query, behind
// gRPC on a Unix socket and TCP.
package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/httpctl/httpctl/aggregator/access"
	"github.com/httpctl/httpctl/aggregator/admin"
	"github.com/httpctl/httpctl/aggregator/enroll"
	"github.com/httpctl/httpctl/aggregator/export"
	"github.com/httpctl/httpctl/aggregator/ingest"
	"github.com/httpctl/httpctl/aggregator/judge"
	"github.com/httpctl/httpctl/aggregator/query"
	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/bolt"
	"github.com/httpctl/httpctl/aggregator/tail"
	"github.com/httpctl/httpctl/aggregator/web"
	"github.com/httpctl/httpctl/pkg/authority"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/daemon"
	"github.com/httpctl/httpctl/pkg/lifecycle"
	"github.com/httpctl/httpctl/pkg/security"
	"github.com/httpctl/httpctl/pkg/telemetry"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// databaseName is the store's file in the data directory.
const databaseName = "httpctl.db"

// graceWait is how long readers' questions that are under way may take when the aggregator stops. A
// peer that reads no answers must not use up the time that the judge and the store need to stop.
const graceWait = 5 * time.Second

// App is a running aggregator.
type App struct {
	log      *slog.Logger
	store    store.Store
	judge    currentJudge
	ingest   *ingest.Service
	admin    *admin.Service
	tails    *tail.Service
	gate     *access.Gate
	enroll   *enroll.Service
	traffic  *traffic // nil when nothing is exported
	hosts    *access.Hosts
	doors    *access.Doors
	web      *web.Server // nil without
	servers  *lifecycle.Group
	timers   *lifecycle.Group // use the judge and the store, and stop before them
	teardown lifecycle.Stack
	rolling  *lifecycle.Rounds // of the workers of those names
	purging  *lifecycle.Rounds

	reloads  *telemetry.Reloads
	changing sync.Mutex // held by whoever puts settings in force
	width    width      // guarded by changing, as is what follows
	wanted   config.Settings

	mu       sync.RWMutex
	settings config.Settings // with the interval width in force
	keeps    Rollups
}

// Main is the program httpctl-aggregator.
func Main() int { return daemon.Main(Program()) }

// Program describes the program httpctl-aggregator.
func Program() daemon.Program {
	cfg := DefaultConfig()
	return daemon.Program{
		Name: "httpctl-aggregator", Short: "keep what the agents of a fleet count, alert, and answer httpctl",
		Long: `Takes the counts of the agents of a fleet, stores each of them exactly once, learns what a normal
request rate is, alerts above it and dismisses the alert again, and answers httpctl. It runs until
SIGTERM or Ctrl-C. Between hosts it speaks mutual TLS only: httpctl ca init makes what that takes.`,
		Example: `httpctl-aggregator                                        # on loopback and a Unix socket
httpctl-aggregator --config /etc/httpctl/aggregator.yaml
httpctl-aggregator --config aggregator.yaml --check       # is it right?
httpctl-aggregator store backup -o httpctl-backup.db      # while it runs`,
		Protocols: Protocols(), Formats: Formats(),
		Section:  config.Section{Name: "aggregator", Into: &cfg},
		Fresh:    func() any { again := DefaultConfig(); return &again },
		Commands: []daemon.Command{{Name: "store", Help: storeHelp, Run: storeCommand}},
		Start: func(ctx context.Context, f *config.File, log *slog.Logger) (daemon.Running, error) {
			a, err := Start(ctx, f.Settings, cfg, log)
			if err != nil {
				return nil, err
			}
			a.timers.Go("pace of the garbage collector", paceCollector)
			return a, nil
		},
	}
}

// Start runs an aggregator until Stop. settings and cfg must be valid. When
// something cannot be set up, what was is torn down.
func Start(ctx context.Context, settings config.Settings, cfg Config, log *slog.Logger) (_ *App, err error) {
	own := context.WithoutCancel(ctx) // ended by Stop
	a := &App{settings: settings, keeps: cfg.Rollups, log: log, servers: lifecycle.NewGroup(own), timers: lifecycle.NewGroup(own),
		rolling: lifecycle.NewRounds("roll-ups", log), purging: lifecycle.NewRounds("purge", log)}
	defer func() {
		if err != nil {
			_ = a.Stop(ctx) // the first error is the one to tell
		}
	}()
	a.teardown.Push("servers", a.servers.Stop)

	if err := os.MkdirAll(cfg.Data, 0o750); err != nil {
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
			err = fmt.Errorf("%w; the user of this program must be able to write there", err)
		}
		return nil, fmt.Errorf("make the data directory (aggregator.data): %w", err)
	}
	rolls := &rollups{log: log, rounds: a.rolling}
	db, err := bolt.Open(filepath.Join(cfg.Data, databaseName), bolt.Options{Rest: rolls.rest})
	if err != nil {
		return nil, err
	}
	a.store, a.admin = db, admin.New(db, log)
	a.teardown.Push("store", func(context.Context) error { return db.Close() })

	width, err := loadWidth(ctx, db, settings.DashboardBucketSize, time.Now())
	if err != nil {
		return nil, err
	}
	a.settings = width.inForce(settings)
	a.width, a.wanted = width, settings
	if width.Next != 0 {
		log.Info("a new dashboard_bucket_size takes effect at the next hour",
			"now", width.Current, "then", width.Next, "at", time.Unix(0, width.NextFrom))
		if a.settings.AverageBucketSize != settings.AverageBucketSize || a.settings.Learning() != settings.Learning() {
			log.Warn("until then windows and learning are longer, as they must be multiples of an interval",
				"average_bucket_size", a.settings.AverageBucketSize, "average_learning_duration", a.settings.Learning())
		}
	}
	if err := a.newJudge(ctx, a.settings); err != nil {
		return nil, err
	}
	a.teardown.Push("judge", func(ctx context.Context) error { return a.judge.get().Stop(ctx) })
	a.teardown.Push("timers", a.timers.Stop)

	registry := telemetry.NewRegistry()
	a.reloads = telemetry.NewReloads(registry)
	identity, err := a.newEnroll(ctx, cfg, registry)
	if err != nil {
		return nil, err
	}
	// Before anything is served, so that a mistake in the settings of TLS is told first.
	creds, domain, err := a.credentialsOf(cfg, identity)
	if err != nil {
		return nil, fmt.Errorf("aggregator.tls: %w", err)
	}
	if err := a.newGate(ctx, cfg, domain, registry); err != nil {
		return nil, err
	}
	traffic, err := newTraffic(cfg.Export, registry, log, func() ([]export.HostState, error) { return a.hostStates(own) })
	if err != nil {
		return nil, err
	}
	a.ingest, err = ingest.New(cfg.Ingest, width.settings(settings.Timeout), ingest.Deps{
		Store: db, State: db, Log: log, Registry: registry, Version: telemetry.Version(), Admit: a.hosts.Claim,
		Extract: traffic.extract(),
		OnStored: func(fresh []ingest.Stored) {
			traffic.add(fresh)
			a.judge.get().Notify()
		},
		OnSamples:    func(from ingest.Tailed, m *httpctlv1.Samples) { a.tails.Take(from.Host, from.Stream, m) },
		OnTailedGone: func(from ingest.Tailed) { a.tails.Gone(from.Host, from.Stream) },
	})
	if err != nil {
		return nil, err
	}
	a.newTails(registry)
	queries, err := query.New(query.Deps{
		Store: db, Judge: &a.judge, Live: live{a.ingest}, Now: time.Now,
		Settings: a.currentSettings,
		Version:  telemetry.Version(), Warnings: a.warnings,
	})
	if err != nil {
		return nil, err
	}
	traffic.start(own)
	a.teardown.Push("export", traffic.Stop)
	a.traffic = traffic
	if err := a.ingest.Start(own); err != nil {
		return nil, err
	}
	a.teardown.Push("ingest", a.ingest.Stop)
	if err := a.listen(ctx, cfg, queries, creds); err != nil {
		return nil, err
	}
	if err := a.serveWeb(ctx, cfg, queries, identity, registry); err != nil {
		return nil, err
	}
	rolls.store = db
	if cfg.Metrics != "" {
		registerStats(registry, db, &a.judge)
		a.registerFaults(registry)
		rolls.register(registry)
		var pages []telemetry.Metrics
		if cfg.Export.Scrape {
			pages = append(pages, telemetry.Metrics{Path: "/metrics/traffic", For: traffic.page})
		}
		page, err := telemetry.Serve(ctx, cfg.Metrics, registry, telemetry.Health{Live: a.live, Ready: func() []telemetry.Condition { return a.ready(own, cfg.Data) }}, pages...)
		if err != nil {
			return nil, err
		}
		a.teardown.Push("metrics page", page.Stop)
	}
	a.timers.Go("purge", a.purge)
	a.timers.Go("roll-ups", rolls.run)
	a.timers.Go("answers", func(ctx context.Context) error {
		return prepareAnswers(ctx, queries.Warm, queries.Refresh, db.Prepare, log)
	})
	a.timers.Go("damage", func(ctx context.Context) error { return tellDamage(ctx, db.ChecksumErrors, log) })
	a.timers.Go("faults", func(ctx context.Context) error { return tellFaults(ctx, db.Faults, log) })
	a.timers.Go("release pages", func(ctx context.Context) error { return releasePages(ctx, db.ReleasePages) })
	if width.Next != 0 {
		a.timers.Go("interval width", func(ctx context.Context) error { return a.changeWidth(ctx, width) })
	}
	return a, nil
}

// newJudge starts a judge with the given settings and makes it the current one.
func (a *App) newJudge(ctx context.Context, settings config.Settings) error {
	j, err := judge.New(settings, a.store, time.Now, a.log)
	if err != nil {
		return err
	}
	if err := j.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	a.judge.set(j)
	return nil
}

// listen serves the Unix socket and the configured addresses.
func (a *App) listen(ctx context.Context, cfg Config, queries *query.Service, creds credentials.TransportCredentials) error {
	serve := func(address string, creds credentials.TransportCredentials) error {
		l, err := security.Listen(ctx, address)
		if err != nil {
			return err
		}
		server := grpc.NewServer(slices.Concat(a.ingest.ServerOptions(), a.enroll.ServerOptions(), a.gate.ServerOptions(),
			[]grpc.ServerOption{grpc.Creds(access.Watch(creds)), grpc.ConnectionTimeout(access.HandshakeWait), grpc.MaxConcurrentStreams(256)})...)
		a.ingest.Register(server)
		httpctlv1.RegisterQueryServiceServer(server, queries)
		httpctlv1.RegisterTailServiceServer(server, a.tails)
		if strings.HasPrefix(address, "unix:") {
			httpctlv1.RegisterAdminServiceServer(server, a.admin)
		}
		a.enroll.Register(server)
		a.servers.Go("serve "+address, func(ctx context.Context) error {
			stop := context.AfterFunc(ctx, server.Stop)
			defer stop()
			return server.Serve(a.doors.Guard(l, creds.Info().SecurityProtocol != "tls"))
		})
		a.teardown.Push("server "+address, func(ctx context.Context) error {
			// Agents' streams and tails never end by themselves; readers' questions do, soon.
			err := errors.Join(a.tails.Stop(ctx), a.ingest.Stop(ctx))
			force := time.AfterFunc(graceWait, server.Stop)
			defer force.Stop()
			server.GracefulStop()
			return err
		})
		a.log.Info("serving", "address", address, "tls", creds.Info().SecurityProtocol == "tls")
		return nil
	}
	if err := serve("unix:"+config.SocketPath(cfg.Data), access.Local()); err != nil {
		return err
	}
	for _, address := range cfg.Listen {
		if err := serve(address, creds); err != nil {
			return err
		}
	}
	return nil
}

// credentialsOf are those of the configured files, else of the authority in the data directory, else none. The trust
// domain is that of certificates that say themselves which role they have; "" if none do.
func (a *App) credentialsOf(cfg Config, identity *enroll.Own) (_ credentials.TransportCredentials, trustDomain string, _ error) {
	if !cfg.TLS.IsZero() {
		creds, err := security.ServerCredentials(cfg.TLS, a.enroll.Verify)
		if err != nil {
			return nil, "", err
		}
		leaf, err := cfg.TLS.Leaf()
		if err != nil {
			return nil, "", err
		}
		if role, _, err := authority.Identity(leaf); err == nil && role == authority.Aggregator {
			trustDomain = authority.TrustDomain(leaf)
		}
		return creds, trustDomain, nil
	}
	if identity == nil {
		return access.Local(), "", nil
	}
	return identity.Credentials(), identity.TrustDomain(), nil
}

// Failed gives the error by which a part of the aggregator ended unasked.
func (a *App) Failed() <-chan error {
	failed := make(chan error, 1)
	var page <-chan error // nil without one
	if a.web != nil {
		page = a.web.Failed()
	}
	a.servers.Go("watch", func(ctx context.Context) error {
		select {
		case err := <-a.ingest.Failed():
			failed <- err
		case err := <-a.tails.Failed():
			failed <- err
		case err := <-a.timers.Failed():
			failed <- err
		case err := <-a.traffic.failed():
			failed <- err
		case err := <-a.servers.Failed():
			failed <- err
		case err := <-page:
			failed <- err
		case <-ctx.Done():
			select {
			case err := <-a.servers.Failed(): // which has cancelled the group
				failed <- err
			default:
			}
		}
		return nil
	})
	return failed
}

// Stop ends the aggregator: first agents' streams, then readers, then the
// judge, then the store. It is idempotent.
func (a *App) Stop(ctx context.Context) error { return a.teardown.Stop(ctx) }

// warnings tells readers what an operator should know.
func (a *App) warnings() (out []string) {
	if since, err := a.ingest.StoreFailure(); err != nil {
		out = append(out, "buckets cannot be stored since "+since.UTC().Format(time.RFC3339)+", agents keep them: "+err.Error())
	}
	if err := a.judge.get().Err(); err != nil {
		out = append(out, "judging fails and is tried again: "+err.Error())
	}
	out = append(out, a.workerWarnings(time.Now())...)
	clones := a.ingest.Clones()
	for i, c := range clones {
		if i == maxClonesTold {
			out = append(out, fmt.Sprintf("%d more host ids are those of several agents: see httpctl hosts", len(clones)-i))
			break
		}
		out = append(out, fmt.Sprintf("several agents have the host id %s: %s; on the copy, stop the agent, remove its state directory, and start it", c.Host, strings.Join(c.Agents, ", ")))
	}
	return out
}

// workerWait is how long a worker may fail before readers are told. What has failed once mostly works the next time.
const workerWait = time.Minute

// workerWarnings tells of workers that do not get on.
func (a *App) workerWarnings(now time.Time) (out []string) {
	for _, w := range []struct {
		what   string
		rounds *lifecycle.Rounds
	}{{"roll-ups are not made", a.rolling}, {"old data is not dropped", a.purging}} {
		if since, err := w.rounds.Failing(); err != nil && now.Sub(since) >= workerWait {
			out = append(out, w.what+" since "+since.UTC().Format(time.RFC3339)+", which is tried again: "+err.Error())
		}
	}
	return out
}

// maxClonesTold bounds the warnings about copied host ids.
const maxClonesTold = 3

// registerStats lets Prometheus see the store and the judge.
func registerStats(r prometheus.Registerer, db store.Store, j *currentJudge) {
	gauge := func(name, help string, f func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
	}
	counter := func(name, help string, f func() float64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, f))
	}
	gauge("httpctl_store_size_bytes", "Size of the database file.", func() float64 { return float64(db.Stats().Bytes) })
	gauge("httpctl_store_intervals", "Intervals in the database.", func() float64 { return float64(db.Stats().Intervals) })
	counter("httpctl_store_expired_total", "Buckets that came after their interval was sealed.", func() float64 { return float64(db.Stats().Expired) })
	counter("httpctl_store_checksum_errors_total", "Stored values that failed their checksum.", func() float64 { return float64(db.Stats().ChecksumErrors) })
	counter("httpctl_store_faults_total", "Sums that were given up for a fault of this program, which is in its log; questions add up what they were made of.", func() float64 { return float64(db.Stats().Faults) })
	gauge("httpctl_store_sums_bytes", "Memory of the sums of pieces of time that are kept for the next question, at most 128 MiB.", func() float64 { return float64(db.Stats().SumBytes) })
	counter("httpctl_store_sums_used_total", "Sums that were there when a question needed them.", func() float64 { return float64(db.Stats().SumsUsed) })
	counter("httpctl_store_sums_made_total", "Sums that a question had to make of buckets or roll-ups; while dashboards are shown hardly any.", func() float64 { return float64(db.Stats().SumsMade) })
	counter("httpctl_judge_verdicts_total", "Windows judged.", func() float64 { return float64(j.get().Stats().Verdicts) })
	counter("httpctl_judge_incomplete_total", "Windows judged without a host or with damaged data.", func() float64 { return float64(j.get().Stats().Incomplete) })
	counter("httpctl_judge_errors_total", "Passes of the judge that failed and were tried again.", func() float64 { return float64(j.get().Stats().Errors) })
}

// registerFaults lets Prometheus see the workers' rounds that ended in a fault.
func (a *App) registerFaults(r prometheus.Registerer) {
	for worker, faults := range map[string]func() uint64{
		"judge": func() uint64 { return a.judge.get().Stats().Faults }, "roll-ups": a.rolling.Faults, "purge": a.purging.Faults,
	} {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "httpctl_worker_faults_total", ConstLabels: prometheus.Labels{"worker": worker},
			Help: "Rounds of a worker (judge, roll-ups, purge) that ended in a fault of this program, which is in its log; it goes on with the next, after a pause that grows."},
			func() float64 { return float64(faults()) }))
	}
}
