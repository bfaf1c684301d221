// Package alert judges windows against the baseline: the second half of the
// default rule (DESIGN section 7). It is pure: no I/O, no clock. Times are
// nanoseconds since the Unix epoch, and event time throughout.
//
// The machine is a [State]. [Judge] takes it over one window and returns the
// next State and the [Record] for the journal; [Replay] makes the State again
// from the journal. These transitions exist and no other:
//
//	learning  -> normal | alert
//	normal    -> normal | alert
//	alert     -> alert  | dismissed
//	dismissed -> alert  | normal
//
// Two of them also happen by the mere passing of event time, see [Advance]:
// learning -> normal once the baseline is enforced, and dismissed -> normal at
// the next interval's boundary. They are not journalled: [Judge] makes the same
// of a State whether it was advanced or not.
//
// [Relearn] is not a transition but a new machine, which begins in learning and
// inherits the history.
package alert
