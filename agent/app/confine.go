package app

import (
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/httpctl/httpctl/pkg/confine"
	"github.com/httpctl/httpctl/pkg/security"
)

// namePort is that of DNS, over TCP where an answer is too long for UDP.
const namePort = 53

// Confine has the whole process give up, for good, what a does not need once its sockets are open; see
// [confine.Apply]. configuration is the file that was read, or "". It is for a program that does nothing
// else. With agent.confine off it does nothing.
func (a *Agent) Confine(configuration string) {
	if !a.cfg.Confine {
		a.log.Warn("the agent is not confined, as agent.confine is off")
		return
	}
	result, err := confine.Apply(a.needs(configuration))
	a.confined.Store(&result)
	missing := result.Missing()
	switch {
	case err != nil:
		a.log.Warn("the agent is not confined as far as it should be", "missing", missing, "err", err)
	case missing != "":
		a.log.Info("the agent is confined, as far as kernel and service manager let it be", "landlock", result.Landlock, "missing", missing)
	default:
		a.log.Info("the agent is confined", "landlock", result.Landlock)
	}
}

// needs is what the agent uses until its end.
func (a *Agent) needs(configuration string) confine.Needs {
	// Its own numbers, and when the host started, for the metrics page.
	needs := confine.Needs{Write: []string{a.cfg.State}, Read: []string{"/proc/self", "/proc/stat"}}
	t := a.cfg.TLS
	for _, file := range []string{configuration, t.CertFile, t.KeyFile, t.CAFile} {
		if file == "" {
			continue
		}
		// The folder and not the file, which is replaced by another when it changes.
		needs.Read = append(needs.Read, filepath.Dir(file))
		if target, err := filepath.EvalSymlinks(file); err == nil {
			needs.Read = append(needs.Read, filepath.Dir(target))
		}
	}
	network, address, err := security.SplitAddress(a.cfg.Aggregator)
	if err != nil || network == "unix" {
		return needs
	}
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return needs
	}
	if port, err := strconv.ParseUint(text, 10, 16); err == nil {
		needs.Ports = append(needs.Ports, uint16(port))
	}
	if _, err := netip.ParseAddr(host); err != nil {
		// resolv.conf is replaced when the network changes, so its folder it is: of a file of its own in
		// /etc, or a link to what a resolver writes.
		needs.Read = append(needs.Read, "/etc", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager")
		if target, err := filepath.EvalSymlinks("/etc/resolv.conf"); err == nil {
			needs.Read = append(needs.Read, filepath.Dir(target))
		}
		needs.Ports = append(needs.Ports, namePort)
	}
	return needs
}

// registerConfined shows what of the confinement is in force.
func registerConfined(r prometheus.Registerer, result *atomic.Pointer[confine.Result]) {
	for _, part := range confine.Parts {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "httpctl_confined", Help: "1 for each part of the agent's confinement that is in force.",
			ConstLabels: prometheus.Labels{"part": part},
		}, func() float64 {
			if c := result.Load(); c != nil && c.Has(part) {
				return 1
			}
			return 0
		}))
	}
}
