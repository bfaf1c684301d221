package web

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// hostOf is the name in a Host header, without port, brackets and final dot, in small letters; "" if it is none.
func hostOf(header string) string {
	host := header
	if h, _, err := net.SplitHostPort(header); err == nil {
		host = h
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// knows reports whether a request is for a name under which this server is reached. A page of another site can have
// its own name lead to this address (DNS rebinding); the browser then sends that name, and takes the answers for that page's.
func (s *Server) knows(r *http.Request) bool {
	host := hostOf(r.Host)
	if host == "" {
		return false
	}
	if _, ok := s.hosts[host]; ok || host == "localhost" {
		return true
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip = ip.Unmap().WithZone(""); ip.IsLoopback() {
			return true
		}
		local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
		return ok && local.AddrPort().Addr().Unmap().WithZone("") == ip // no name leads here, then
	}
	leaf := s.leaf.Load()
	return r.TLS != nil && leaf != nil && leaf.VerifyHostname(host) == nil
}

// ownSite reports whether a request does not come from a page of another site, as far as the browser tells. Such a
// page could not read the answer, but have the aggregator work for it.
func ownSite(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return true
	}
	return false
}
