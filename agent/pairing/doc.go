// Package pairing turns the bytes of connections into exchanges: it frames both
// directions with agent/http1, tells each response parser which request its
// response answers, and hands the events of each exchange to a sink (DESIGN
// sections 2 and 5).
//
// # Which response answers which request
//
// Responses come in the order of their requests (RFC 9112 section 9.3.2). That
// holds until something is not seen. A request that was lost leaves a
// placeholder in the queue, so that its response does not take a later
// request's place. A response that was lost is known by what follows it: on a
// connection that does not pipeline, the next request is only sent when the
// response before it has arrived, so a response after a gap answers the first
// request that was sent after that gap, and the requests before it stay
// unmatched. On a connection that pipelines, one response is taken to be lost
// for each gap between responses. If it were more, every later one would be given another's
// request, so what still waits is given up once it is clear that its response has been sent: when a
// client that waits for all answers before it sends more does so, or when one that keeps
// some requests ahead would have more of them ahead than ever before. Of requests, a gap leaves as many places as the
// client has fewer waiting than before (lately, if it keeps some ahead), up to what its bytes can hold. Where a client follows no habit, how many messages a gap held
// cannot be told from what it does next: from there on its requests and responses are counted, each alone, and not paired.
//
// # Whose turn it is
//
// A parser that has lost its place may find the next message only where one can
// begin: in the first bytes of a direction after the other direction has
// spoken. Chunks come in causal order (see stream.Handler), so a body that goes
// on after a gap is never preceded by bytes of the other side. Only when the
// connection is known to pipeline, or the other direction is not captured at
// all, is the start of any chunk looked at.
package pairing
