// Package safety keeps values from becoming program text, and processes from
// getting what was not meant for them.
//
// Shell text with values in it is parsed first, and then runs with a reference
// to a variable in the place of each value:
//
//	text, err := safety.ParseShell([]string{"rm -- ", ""}, []string{"${{ file }}"}, []safety.Kind{safety.KindAny}, safety.DialectBash)
//	script, vars, err := text.Bind([]safety.Value{{Text: "a; reboot"}})
//	// script is rm -- "${pipe_v0_}", and vars sets pipe_v0_ to a; reboot
//
// [ProgramText] finds values in the arguments of programs that read them as
// programs, [Env] is an environment without what nobody asked for, [LookPath]
// finds programs, [Dir] confines files to a directory, and [Redactor] masks
// secrets.
//
// The package reads no YAML, starts no process and has no state; what depends on
// the machine, such as its environment, is an argument. Unless a type says
// otherwise, several goroutines may use its functions and values at once.
package safety
