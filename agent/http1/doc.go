// Package http1 frames HTTP/1.x messages: it finds where each message of one
// direction of a connection starts and ends, reads the few header fields that
// framing and statistics need, and counts the rest (RFC 9112).
//
// It is pure: it reads no clock and does no I/O. A [Parser] is fed with
// stretches of bytes, split anywhere, and with gaps. Body bytes are counted and
// never kept. A head that lies in one stretch is read in place; one that is
// split is copied into a buffer, and the buffers of all parsers together are
// bounded by their [Env].
//
// # Losing and finding the place
//
// A gap inside a body of known length costs nothing but its bytes. A gap
// anywhere else, or framing that is not HTTP, loses the parser's place. It then
// looks for the next message start, and because body text can look like one,
// it looks only at the start of a stretch for which [Parser.Stretch] was told
// that a message may start there, and takes only a head that is valid to its
// last line. Who calls Stretch knows both directions and therefore whose turn
// it is.
//
// # What is not RFC 9112 and is on the wire
//
// In its place a start line is taken although it is wrong, as long as those it
// was meant for take it too: another version, other or more white space than one SP,
// ICY for a version, several CRs before a LF, a first request line without version
// before fields. While the place is lost only what the RFC allows is taken, and a whole request head in which nothing but bytes of
// the target or of values is wrong; not what a gap leaves of a registered method, D of HEAD, of which nobody can say which one it was.
// [Parser.Due] ends a message that the other end has left behind.
//
// # Ambiguous requests
//
// Where two servers could frame a request differently (request smuggling) the
// reading of RFC 9112 is followed, and the reasons are given by Parser.Suspect
// and counted, each once a request.
package http1
