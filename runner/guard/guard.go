// Package guard ends all that a program has started when the program is
// killed, in whatever way, and finds the processes that left their group.
//
// A program that wants that calls [Enter] first thing in its main. On Linux
// the program is then two processes: the one that was started, which from then
// on only passes signals on and waits, and a child of it that runs on in main.
// When the first one is killed, the second one learns of it by the end of a
// pipe, kills everything and exits; when the second one is killed, the first
// one kills everything. Both are child subreapers, so that a process which left
// its group and lost its parent comes to them. If both are killed at once, the
// direct children die of their death signal.
//
// On other systems Enter does nothing, and the death of the program leaves its
// processes alone.
package guard
