// Package access decides who may do what: it finds out who a peer is (its certificate, its user on a
// Unix socket, a token on loopback), which roles that gives, and refuses calls of methods that need
// another, with a word for the peer, a line in the log and a counter (docs/security.md).
package access
