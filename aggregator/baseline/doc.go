// Package baseline learns what a normal number of requests is: the first half
// of the default rule (DESIGN section 7). It is pure: no I/O, no clock. Times
// are nanoseconds since the Unix epoch, and event time throughout.
//
// Learning covers [T0, T1). What was counted there, scaled to the width of a
// window, is the baseline, and stays so until someone asks to relearn. When
// nothing was counted or nothing was covered, learning starts again at T1, as
// a baseline of zero would make every request an alert.
package baseline
