package app

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/httpctl/httpctl/aggregator/enroll"
	"github.com/httpctl/httpctl/aggregator/ingest"
	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/authority"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/security"
)

// newEnroll opens the authority in the data directory, if it is used, and makes the service that lets
// hosts in with it. own is nil without one.
func (a *App) newEnroll(ctx context.Context, cfg Config, registry prometheus.Registerer) (own *enroll.Own, err error) {
	dir := authority.Dir(cfg.Data)
	if cfg.hasAuthority() {
		ca, err := authority.Open(dir)
		if err != nil {
			return nil, err
		}
		if own, err = enroll.NewOwn(ca, dir, cfg.Enroll.CertificateLife, time.Now, a.log); err != nil {
			return nil, err
		}
		a.log.Info("certificates are made by the authority in the data directory", "fingerprint", ca.Fingerprint(), "trust_domain", ca.TrustDomain(), "own_until", own.NotAfter())
	}
	a.enroll, err = enroll.New(cfg.Enroll, enroll.Deps{
		Store: a.store, Own: own, Log: a.log, Registry: registry,
		Connected: func() (all []enroll.Connected) {
			for _, c := range a.ingest.Agents() {
				all = append(all, enroll.Connected{Host: c.Host, Name: c.Name, Identity: c.Identity})
			}
			return all
		},
		Reported: a.reported,
		Addresses: func() ([]string, error) {
			names, err := authority.Names(dir)
			if err != nil {
				return nil, err
			}
			return addresses(cfg.Listen, names)
		},
	})
	if err != nil {
		return nil, err
	}
	if own != nil {
		own.SetVerify(a.enroll.Verify)
	}
	return own, a.enroll.Load(ctx)
}

// reported says whether a host is connected, or was since the start, or has buckets in the store.
func (a *App) reported(ctx context.Context, id bucket.ID) (bool, error) {
	if slices.ContainsFunc(a.ingest.Agents(), func(c ingest.Agent) bool { return c.Host == id }) {
		return true, nil
	}
	hosts, err := a.store.Hosts(ctx)
	return slices.ContainsFunc(hosts, func(h store.Host) bool { return h.ID == id }), err
}

// addresses says where others reach an aggregator that listens there and has the names.
func addresses(listen, names []string) ([]string, error) {
	var all []string
	add := func(local bool) {
		for _, l := range listen {
			_, port, err := net.SplitHostPort(l)
			if err != nil || security.IsLocal(l) != local {
				continue
			}
			for _, n := range names {
				a := net.JoinHostPort(n, port)
				if security.IsLocal(a) == local && !slices.Contains(all, a) {
					all = append(all, a)
				}
			}
		}
	}
	if add(false); len(all) == 0 {
		add(true) // agents on this host
	}
	if len(all) == 0 {
		return nil, errors.New("this aggregator does not listen where the names of httpctl ca init --name are reached: set aggregator.listen, or say where with --address HOST:PORT")
	}
	return all[:min(len(all), authority.MaxAddresses)], nil
}
