package ingest

import (
	"net"
	"slices"
	"strings"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/security"
)

const (
	// cloneKept is how long two agents with one host id are told of after they were last seen to alternate. Each takes
	// the other's place when it connects, which agents do within backoff_max, 30 s.
	cloneKept = 10 * time.Minute
	// cloneAgain is when the log tells of the same host again.
	cloneAgain = time.Hour
	// maxLives bounds the incarnations of one host that are remembered: more copies are not named.
	maxLives = 4
)

// life is an agent that has said hello under a host id.
type life struct {
	incarnation bucket.ID
	name, peer  string
	last        time.Time
}

// noteLife notes which agent speaks under a host id now. An incarnation is new at each start and each step of
// the clock, and never comes back: if one does after another was there, both run, on a host and a copy of it.
// The caller holds the lock.
func (s *Service) noteLife(a *agent, info *Agent, now time.Time) {
	if n := len(a.lives); n > 0 { // how long the one before was here
		a.lives[n-1].last = a.Since
		if a.stream != nil {
			a.lives[n-1].last = now
		}
	}
	at := slices.IndexFunc(a.lives, func(l life) bool { return l.incarnation == info.Incarnation })
	back := at >= 0 && at < len(a.lives)-1
	if at >= 0 {
		a.lives = slices.Delete(a.lives, at, at+1)
	}
	a.lives = slices.DeleteFunc(a.lives, func(l life) bool { return now.Sub(l.last) > cloneKept })
	if len(a.lives) == maxLives {
		a.lives = slices.Delete(a.lives, 0, 1)
	}
	a.lives = append(a.lives, life{info.Incarnation, info.Name, info.Peer, now})
	if !back {
		return
	}
	a.cloned = now
	if now.Sub(a.clonedLogged) >= cloneAgain || a.clonedLogged.IsZero() {
		a.clonedLogged = now
		s.log.Warn("several agents have the same host id and take each other's place: a host was copied with the agent's state directory; "+
			"on the copy, stop the agent, remove its state directory, and start it", "host", info.Host, "agents", strings.Join(a.names(), ", "))
	}
}

// names are the agents that speak under a host id, clean. The caller holds the lock.
func (a *agent) names() []string {
	var out []string
	for _, l := range a.lives {
		peer := l.peer
		if host, _, err := net.SplitHostPort(peer); err == nil {
			peer = host
		}
		out = append(out, security.CleanText(l.name)+" at "+security.CleanText(peer))
	}
	return out
}

// Clone is a host id that several agents have.
type Clone struct {
	Host bucket.ID
	// Agents are they: name and address of each, clean.
	Agents []string
}

// Clones lists the host ids that several agents had in the last minutes, sorted.
func (s *Service) Clones() []Clone {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Clone
	for host, a := range s.agents {
		if !a.cloned.IsZero() && now.Sub(a.cloned) < cloneKept {
			out = append(out, Clone{host, a.names()})
		}
	}
	slices.SortFunc(out, func(x, y Clone) int { return x.Host.Compare(y.Host) })
	return out
}
