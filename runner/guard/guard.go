// Package guard ensures that the processes a program has started do not outlive
// it, even if the program is killed by SIGKILL. It also finds and ends orphans:
// descendants that have left their process group and lost their parent.
//
// A program calls [Enter] first thing in its main. On Linux the program then
// consists of two processes. The first process, which the caller started, only
// forwards signals and waits. The second process, its child, runs the rest of main.
// If the first process is killed, the second one reads the end of a pipe, kills all
// descendants and exits. If the second process is killed, the first one kills all
// descendants. Both are child subreapers, so orphans become their children. If both
// are killed at once, the kernel kills the direct children with their parent-death
// signal.
//
// On other systems Enter does nothing, and processes outlive a program that is
// killed.
package guard
